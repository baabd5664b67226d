#!/bin/bash
# First process of the test node, in its own mount and process namespace: when it ends, every
# container, shim and mount of the node ends with it.
#
# Environment: STATE (the node's folder), PROGRAMS (containerd and its helpers), KUBELET (program),
# NODE_NAME, NODE_IP, CONTAINERD (its socket). Standard input: one line when the images are there and the kubelet may start.
set -eu

# The kubelet would write these settings of the machine. It reads them first: shown files that hold
# the values it wants, it leaves the machine's alone.
mount --bind "$STATE/sysctl/overcommit_memory" /proc/sys/vm/overcommit_memory
mount --bind "$STATE/sysctl/panic" /proc/sys/kernel/panic
mount --bind "$STATE/sysctl/panic_on_oops" /proc/sys/kernel/panic_on_oops

mount --bind "$STATE/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$STATE/log" /var/log
for folder in /run/containerd /run/netns /var/lib/cni; do mount -t tmpfs none "$folder"; done
mount --make-rshared /run/netns

export PATH="$PROGRAMS:$PATH"
# Pulling an image never leaves the machine: it meets a closed loopback port and fails at once.
HTTP_PROXY=http://127.0.0.1:1 HTTPS_PROXY=http://127.0.0.1:1 NO_PROXY='' \
  containerd --config "$STATE/containerd.toml" >"$STATE/containerd.log" 2>&1 &

read -r _ || exit 1

# SIGHUP starts the kubelet again, with what its configuration says by then; containers live on.
kubelet=
again=
trap 'again=1; kill "$kubelet" 2>/dev/null || true' HUP
start_kubelet() {
  "$KUBELET" --config="$STATE/kubelet.yaml" --kubeconfig="$STATE/kubelet.kubeconfig" \
    --hostname-override="$NODE_NAME" --node-ip="$NODE_IP" --root-dir=/var/lib/kubelet \
    --cert-dir="$STATE/kubelet-certificates" --container-runtime=remote \
    --container-runtime-endpoint="unix://$CONTAINERD" --image-service-endpoint="unix://$CONTAINERD" \
    --register-node=true --v=2 >>"$STATE/kubelet.log" 2>&1 &
  kubelet=$!
}
start_kubelet

# Neither may end of itself: then the node ends, and whoever waits for it reads why.
while :; do
  status=0
  wait -n || status=$?
  [ -n "$again" ] || break
  again=
  wait "$kubelet" || true
  start_kubelet
done
echo "the kubelet or containerd ended with status $status"
tail -n 8 "$STATE/kubelet.log" "$STATE/containerd.log"
exit 1
