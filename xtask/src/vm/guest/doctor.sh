# Whether capture can be armed here, and what is said when it cannot.
affiant doctor --json > /disk/out/doctor.json 2> /disk/out/doctor.err
echo $? > /disk/out/doctor.exit
if start_daemon; then
    cp /tmp/status /disk/out/status
    kill "$daemon"
fi
wait "$daemon"
echo $? > /disk/out/daemon.exit
cp /tmp/daemon.log /disk/out/daemon.log
# The best tier by force: where it cannot be had, nothing is armed and the reason is told.
configure lsm
if start_daemon; then
    kill "$daemon"
fi
wait "$daemon"
echo $? > /disk/out/forced.exit
cp /tmp/daemon.log /disk/out/forced.log
