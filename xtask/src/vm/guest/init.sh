#!/bin/sh
# The guest's system: mounts what the agent and the tests expect, then runs the
# command, itself or as a unit of systemd where the disk has that.
set -u
export PATH=/usr/sbin:/usr/bin:/merestone/bin HOME=/root TERM=dumb
. /merestone/environment

# The image is made without root, so its files belong to whoever made it.
chown -R 0:0 /etc /root /merestone /usr /var 2>/dev/null
mount -t securityfs securityfs /sys/kernel/security
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=0755 tmpfs /run
for place in /dev/shm /tmp; do
    mount -t tmpfs tmpfs "$place"
done
mkdir -p /run/netns
hostname "$XTASK_VM_HOST"
ip link set lo up
ulimit -l unlimited


[ -x /usr/lib/systemd/systemd ] && exec /usr/lib/systemd/systemd
exec sh /merestone/run
