# Four boots of one host: two that are stopped in order, one whose power is cut, one that finds what the cut left.
start_daemon || fail "the daemon is not armed at boot $boot"
[ -e /disk/out/trust.toml ] || affiant trust init -o /disk/out/trust.toml || fail "trust init: $?"
run_session "$boot"
if [ "$boot" = 3 ]; then
    # What was shown must be there after the cut, though nothing but the agent itself writes to the disk for good.
    affiant tail -o json > /tmp/sealed || fail "tail: $?"
    say "sealed $(wc -l < /tmp/sealed)"
    say cut
    sleep 60
fi
stop_daemon
cp /tmp/daemon.log "/disk/out/daemon-$boot.log"
