#!/bin/busybox sh
# The guest's first process: mounts what a booted host has mounted, then runs the scenario that the command line names.
# Lines that begin with "affiant-vm:" are for the host; everything else a scenario leaves in /disk/out.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mount -t tmpfs none /run
mount -t bpf none /sys/fs/bpf
mount -t tracefs none /sys/kernel/tracing
mount -t securityfs none /sys/kernel/security
mount -t cgroup2 none /sys/fs/cgroup
. /lib/guest.sh
say "up $(uname -r)"
while read -r module; do
    insmod "/modules/$module.ko" || fail "insmod $module"
done < /modules/order
hostname guest
ifconfig lo 127.0.0.1 up
mount -t ext4 /dev/vda /disk || fail "no disk"
mkdir -p /disk/state /disk/out
mount --bind /disk/state /var/lib/affiant
# Counted here and not told by the host: a firmware measures the command line, and two boots alike must be told by it as such.
read -r boot 2> /dev/null < /disk/boots || boot=0
boot=$((boot + 1))
echo "$boot" > /disk/boots
sync
for word in $(cat /proc/cmdline); do
    case $word in
        affiant.scenario=*) scenario=${word#*=} ;;
        affiant.tier=*) configure "${word#*=}" ;;
    esac
done
# What a guest that hangs was doing, before the host loses patience.
( sleep 150; echo w > /proc/sysrq-trigger; dmesg | tail -n 60; ps; cat /tmp/status.err; tail -n 30 /tmp/daemon.log ) &
watch=$!
. "/scenario/$scenario"
kill "$watch"
umount /var/lib/affiant
umount /disk || fail "the disk is busy"
say done
poweroff -f
