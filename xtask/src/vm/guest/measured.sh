# What was booted is measured by the firmware and by the kernel (IMA), quoted, and kept beside the log.
# Files of securityfs have no size.
for log in tpm0/binary_bios_measurements ima/binary_runtime_measurements; do
    [ "$(head -c 1 "/sys/kernel/security/$log" | wc -c)" = 1 ] || fail "no $log"
done
start_daemon || fail "the daemon is not armed at boot $boot"
run_session "$boot"
# The kernel's policy leaves out what lies in memory, as everything else in a guest does: one program from the disk.
[ -e /disk/measured ] || cp /bin/act-execs /disk/measured || fail "no room for a program"
/disk/measured 1 /bin/true || fail "a program on the disk: $?"
affiant anchor --nonce "000102030405060708090a0b0c0d0e0$boot" > "/disk/out/anchor-$boot.txt" || fail "anchor: $?"
[ -e /disk/out/trust.toml ] || affiant trust init -o /disk/out/trust.toml || fail "trust init: $?"
stop_daemon
cp /tmp/daemon.log "/disk/out/daemon-$boot.log"
cat /proc/cmdline > "/disk/out/cmdline-$boot"
# The registers by another way than the agent's.
for register in 0 1 2 3 4 5 6 7 9; do
    echo "$register $(cat /sys/class/tpm/tpm0/pcr-sha256/$register)" || fail "register $register"
done > "/disk/out/pcrs-$boot"
