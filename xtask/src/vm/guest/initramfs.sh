#!/bin/busybox sh
# The guest's first process: loads the modules, goes over to the disk.
set -u
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
for module in $($bb cat /modules/order); do
    $bb insmod "/modules/$module.ko" || $bb echo "module $module was not loaded"
done
tries=0
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do
    tries=$((tries + 1))
    [ "$tries" -gt 100 ] && $bb echo "no disk" && $bb poweroff -f
    $bb sleep 0.1
done
$bb mount -t ext4 /dev/vda /root || $bb poweroff -f
for place in proc sys dev; do
    $bb mount -o move "/$place" "/root/$place"
done
exec $bb switch_root /root /merestone/init
