# As `restarts`, on a host with a TPM: each boot also asks for a quote with a nonce of somebody's.
start_daemon || fail "the daemon is not armed at boot $boot"
[ -e /disk/out/trust.toml ] || affiant trust init -o /disk/out/trust.toml || fail "trust init: $?"
run_session "$boot"
affiant anchor --nonce "000102030405060708090a0b0c0d0e0$boot" --export "/disk/out/anchor-$boot" \
    > "/disk/out/anchor-$boot.txt" || fail "anchor: $?"
cp /tmp/status "/disk/out/status-$boot"
if [ "$boot" = 3 ]; then
    affiant tail -o json > /tmp/sealed || fail "tail: $?"
    say "sealed $(wc -l < /tmp/sealed)"
    say cut
    sleep 60
fi
stop_daemon
cp /tmp/daemon.log "/disk/out/daemon-$boot.log"
