# A session with known acts under pure cgroup v2, stopped in order; the log stays on the disk.
cp /proc/mounts /disk/out/mounts
start_daemon || fail "the daemon is not armed"
affiant trust init -o /disk/out/trust.toml || fail "trust init: $?"
sha256sum /bin/* > /disk/out/sums
say "controllers"
# The no-internal-process rule and the controllers are what pure v2 adds.
for controller in memory pids; do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control || fail "controller $controller"
done
say "session 1"
run_session 1
say "session 2"
# Leaves its session's cgroup, and must stay attributed.
affiant run -- /bin/sh -c 'echo $$ > /sys/fs/cgroup/cgroup.procs; /bin/act-execs 2 /bin/true; exit 0' \
    > /disk/out/run-2.out 2> /disk/out/run-2.err || fail "session 2: $?"
say "session 3"
# Privileged acts, each once: a mount made and taken away, a root changed, a network namespace, a user namespace, a program that
# is not there, and as another user a signal to process 1 that is refused.
affiant run -- /bin/sh -c 'mkdir -p /tmp/m; mount -t tmpfs none /tmp/m; umount /tmp/m; chroot /tmp /nothing; unshare -n /bin/true; \
unshare -U /bin/true; /nothing; su -s /bin/sh nobody -c "kill -9 1"; exit 0' \
    > /disk/out/run-3.out 2> /disk/out/run-3.err || fail "session 3: $?"
sessions_end
say "stop"
stop_daemon
cp /tmp/daemon.log /disk/out/daemon.log
