# As `restarts`, on a host with a TPM that an authority enrols meanwhile, by files that the host of the guest carries to and fro.
# Each boot also asks for a quote with a nonce of somebody's.
[ "$boot" != 3 ] || affiant enroll install /disk/certificate > /disk/out/install.txt || fail "install: $?"
start_daemon || fail "the daemon is not armed at boot $boot"
run_session "$boot"
affiant anchor --nonce "000102030405060708090a0b0c0d0e0$boot" --export "/disk/out/anchor-$boot" \
    > "/disk/out/anchor-$boot.txt" || fail "anchor: $?"
cp /tmp/status "/disk/out/status-$boot"
case $boot in
    1)
        affiant trust init -o /disk/out/trust.toml || fail "trust init: $?"
        affiant enroll request -o /disk/out/request > /disk/out/request.txt || fail "request: $?"
        ;;
    2)
        affiant enroll respond /disk/challenge -o /disk/out/response || fail "respond: $?"
        ;;
    3)
        affiant tail -o json > /tmp/sealed || fail "tail: $?"
        say "sealed $(wc -l < /tmp/sealed)"
        say cut
        sleep 60
        ;;
esac
stop_daemon
cp /tmp/daemon.log "/disk/out/daemon-$boot.log"
if [ "$boot" = 4 ]; then
    # So far the site vouches for the key. From here on the machine's vendor does, by a key that came with the machine.
    cp -r /disk/state/log /disk/out/log-site || fail "copy of the log: $?"
    affiant enroll identity /disk/identity.pem --key 0x81090001 > /disk/out/identity.txt || fail "identity: $?"
    start_daemon || fail "the daemon is not armed with the vendor's word"
    affiant anchor > /disk/out/anchor-5.txt || fail "anchor: $?"
    stop_daemon
    cp /tmp/daemon.log /disk/out/daemon-5.log
fi
