# Ends what a state folder says was started and puts the machine back as it was before.
#
#   sh undo.sh FOLDER [now|after-parent]
#
# The one way to undo, used by an orderly stop, by the end of the process that started things
# (after-parent: standard input closes then, also on SIGKILL), and by the next start, which may find
# what a killed run left. Running it twice does no harm. The folder holds:
#   NAME.pid            "PID START_TIME" of a daemon
#   host/links          network links to delete
#   host/addresses      addresses to take off lo
#   host/ip_forward     what /proc/sys/net/ipv4/ip_forward was
#   host/cgroups        names of control groups to remove from every hierarchy
#   host/folders        folders that were made, removed when empty
#   host/sockets        sockets and files that were made outside of the folder
set -u
state=$1
[ "${2:-now}" = now ] || read -r _ || :

# running PID START_TIME: the process still is the one that was started, and no zombie.
running() {
  expected=$2
  stat=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 1
  # shellcheck disable=SC2086  # the fields are words
  set -- $stat
  [ "$#" -ge 20 ] && [ "$1" != Z ] && [ "$1" != X ] && [ "${20}" = "$expected" ]
}

each_line() { # FILE: its lines, none when it is missing
  [ -f "$1" ] && cat "$1"
}

for file in "$state"/*.pid; do
  [ -f "$file" ] || continue
  read -r pid start <"$file" || continue
  running "$pid" "$start" && kill -KILL "$pid" 2>/dev/null
done
for file in "$state"/*.pid; do
  [ -f "$file" ] || continue
  read -r pid start <"$file" || continue
  n=0
  while running "$pid" "$start" && [ "$n" -lt 200 ]; do sleep 0.05; n=$((n + 1)); done
done

# The control groups can go when the last process in them is gone: that is what is waited for.
each_line "$state/host/cgroups" | while read -r group; do
  for path in /sys/fs/cgroup/"$group" /sys/fs/cgroup/*/"$group"; do
    n=0
    while [ -d "$path" ] && [ "$n" -lt 200 ]; do
      find "$path" -depth -type d -exec rmdir {} \; 2>/dev/null
      [ -d "$path" ] || break
      sleep 0.05
      n=$((n + 1))
    done
  done
done
each_line "$state/host/links" | while read -r link; do ip link del "$link" 2>/dev/null; done
each_line "$state/host/addresses" | while read -r address; do ip addr del "$address" dev lo 2>/dev/null; done
[ -f "$state/host/ip_forward" ] && cat "$state/host/ip_forward" >/proc/sys/net/ipv4/ip_forward
each_line "$state/host/sockets" | while read -r path; do rm -f "$path"; done
each_line "$state/host/folders" | while read -r path; do rmdir "$path" 2>/dev/null; done

n=0
while ! rm -rf "$state" 2>/dev/null && [ "$n" -lt 200 ]; do sleep 0.05; n=$((n + 1)); done
exit 0
