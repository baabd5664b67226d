# Boots systemd over this machine's files, which what runs there can't change.
#
#   sh machine.sh join FOLDER GROUP   enters the control group and new namespaces, and goes on with:
#   sh machine.sh boot FOLDER         as process 1 of the new ones
#
# FOLDER takes the mount points. What this machine does not allow ends it, with the words of the command
# that was refused.
set -eu
state=$2
if [ "$1" = join ]; then
  echo 0 >"$3/cgroup.procs"
  exec unshare --mount --uts --ipc --cgroup --pid --fork --kill-child -- sh "$0" boot "$state"
fi

layer=$state/layer
root=$state/root
mkdir "$layer" "$root"
mount -t tmpfs -o mode=755 machine "$layer"
mkdir "$layer/upper" "$layer/work"
mount -t overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" machine "$root"

mount -t proc proc "$root/proc"
# Settings of the kernel are this machine's, too.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$root/dev"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

# No services and file systems but those that are installed later, and a journal.
units=$root/etc/systemd/system
rm -rf "$units" "$root"/lib/systemd/system/*.wants
mkdir -p "$units/basic.target.wants"
ln -s /lib/systemd/system/systemd-journald.service "$units/basic.target.wants/"
: >"$root/etc/fstab"
# Containers forbid packages to start services by this; it is a machine.
rm -f "$root/usr/sbin/policy-rc.d"

mkdir "$root/mnt/before"
cd "$root"
pivot_root . mnt/before
umount -l /mnt/before
# As systemd finds it outside of containers: it hands credentials over by mounting them.
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target
