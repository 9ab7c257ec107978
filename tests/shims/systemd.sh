#!/usr/bin/env bash
# systemd as pid 1 of namespaces of its own, on this machine's files, with Debian's unit of Redis. What it and
# the test change (/etc, /run, /tmp, /usr/local, Redis' data) is in memory and goes away with the namespaces.
#
#     unshare --kill-child --mount --pid --fork --cgroup --uts --ipc --net --mount-proc bash systemd.sh BIN [DATA]
#
# BIN is the folder of durac and its agent; inside, they are in /usr/local/bin and /usr/local/lib/durac. DATA, if it is
# given, is a folder on a disk that Redis' data is in.
set -euo pipefail

bin=$1
data=${2:-}
PATH=$PATH:/usr/sbin:/sbin
mount --make-rprivate /
ip link set lo up
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/upper /mnt/work
# BIN may be under what is hidden next.
cp "$bin/durac" "$bin/libdurac_preload.so" /mnt
if [ -n "$data" ]; then
    mkdir /mnt/data
    mount --bind "$data" /mnt/data
fi
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /etc
mount -t cgroup2 none /sys/fs/cgroup
for own in /dev/shm /home /run /tmp /usr/local /etc/systemd/system /var/lib/redis; do
    mount -t tmpfs -o mode=755 none "$own"
done
# The journal of earlier systems is not this one's.
if [ -d /var/log/journal ]; then
    mount -t tmpfs -o mode=755 none /var/log/journal
fi
mkdir -p /run/systemd /run/lock /usr/local/bin /usr/local/lib/durac
chmod 1777 /dev/shm /tmp /run/lock
mv /mnt/durac /usr/local/bin
mv /mnt/libdurac_preload.so /usr/local/lib/durac
if [ -n "$data" ]; then
    mount --bind /mnt/data /var/lib/redis
fi
chown redis:redis /var/lib/redis
# Only what is asked for is started.
printf '[Unit]\nDefaultDependencies=no\n' >/etc/systemd/system/idle.target
export container=durac
exec /lib/systemd/systemd --system --unit=idle.target --log-target=null --show-status=no
