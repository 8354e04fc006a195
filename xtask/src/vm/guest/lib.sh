# What the scenarios have in common.

say() {
    echo "affiant-vm: $*"
}

# Says what went wrong and ends the guest: the host shows the console.
fail() {
    [ ! -s /tmp/daemon.log ] || cat /tmp/daemon.log
    say "failed $*"
    sync
    poweroff -f
    sleep 60
}

# What the daemon is started with besides.
daemon_flags=

# Has the daemon take a tier of hooks.
configure() {
    mkdir -p /etc/affiant
    printf '[capture]\ntier = "%s"\n' "$1" > /etc/affiant/affiant.toml
}

# Starts the daemon and waits until it answers; with an argument, what it says goes to that file too.
start_daemon() {
    affiant daemon $daemon_flags > /tmp/daemon.log 2>&1 &
    daemon=$!
    looks=0
    while ! affiant status > /tmp/status 2> /tmp/status.err; do
        looks=$((looks + 1))
        [ -d "/proc/$daemon" ] || return 1
        [ "$looks" -lt 200 ] || return 1
        sleep 0.2
    done
}

# Ends the daemon in order.
stop_daemon() {
    kill "$daemon"
    wait "$daemon" || fail "the daemon ended with $?"
    daemon=
}

# A session whose acts are counted: 9 execs, 8 forks, 9 exits, 5 files made, 4 connects over the loopback and what becomes of
# them at both ends, 6 datagrams to 2 addresses, 2 connects to sockets of the host.
run_session() {
    mkdir -p "/tmp/opens-$1"
    affiant run --task "boot $1" -- /bin/sh -c "/bin/act-execs 3 /bin/true; /bin/act-opens 5 /tmp/opens-$1; \
/bin/act-connects 4 loopback; /bin/act-network datagrams 6 127.0.0.1:5001 127.0.0.1:5002; \
/bin/act-network unix /tmp/served-$1; exit 0" > "/disk/out/run-$1.out" 2> "/disk/out/run-$1.err" || fail "session $1: $?"
    sessions_end
}

# Waits until every session has ended: what it left is in the log then.
sessions_end() {
    looks=0
    until affiant session list | grep -q "no open sessions"; do
        looks=$((looks + 1))
        [ "$looks" -lt 50 ] || fail "a session does not end: $(affiant session list)"
        sleep 0.2
    done
}
