# A session with known acts under pure cgroup v2, stopped in order; the log stays on the disk.
cp /proc/mounts /disk/out/mounts
# With what the verifier counted of each program.
daemon_flags=-v
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
say "session 4"
# Ways around open(2), and execs that change credentials: what a tier sees of them, or says that it does not.
echo 'user:x:1000:1000::/:/bin/sh' >> /etc/passwd
mkdir -p /tmp/unseen
for file in by-32 by-handle by-ring by-worker by-path passed; do
    echo "$file" > "/tmp/unseen/$file"
done
for file in set-id granted; do
    cp /bin/busybox "/tmp/unseen/$file"
done
chmod 4755 /tmp/unseen/set-id
# A program that becomes another one of the same size, in the same inode.
mkdir -p /tmp/unseen/changes
for version in a b; do
    { cat /bin/busybox; echo $version; } > /tmp/unseen/$version
    sha256sum < /tmp/unseen/$version >> /disk/out/versions
done
cp /tmp/unseen/a /tmp/unseen/changes/true
chmod 755 /tmp/unseen/changes/true
affiant run -- /bin/sh -c '/bin/act-unseen && /bin/act-unusual /tmp/unseen && /bin/true $(seq 2000) &&
for file in set-id granted; do start-stop-daemon -S -c user -x /tmp/unseen/$file -- true; done
for version in a b; do
    cat /tmp/unseen/$version > /tmp/unseen/changes/true
    for time in 1 2 3; do sleep 0.1; /tmp/unseen/changes/true; done
done' \
    > /disk/out/run-4.out 2> /disk/out/run-4.err || fail "session 4: $?, $(cat /disk/out/run-4.err)"
sessions_end
say "stop"
stop_daemon
cp /tmp/daemon.log /disk/out/daemon.log
