#!/usr/bin/env bash
# systemd as pid 1 of namespaces of its own, on this machine's files, with Debian's unit of Redis. What it and
# the test change (/etc, /run, /tmp, /usr/local, /var) is in memory and goes away with the namespaces: at its boot systemd
# removes every /var/tmp/systemd-private-*, and those of another system, or of this machine's own, are in use.
#
#     unshare --kill-child --mount --pid --fork --uts --ipc --net --mount-proc bash systemd.sh CGROUP BIN FOLDER
#
# CGROUP is the name of its control group, which it makes beside the caller's: the services of two systems have the same
# names. BIN is the folder of durac and its agent; inside, they are in /usr/local/bin and /usr/local/lib/durac. FOLDER is an
# empty one, on a disk, for Redis' data and /var/tmp.
#
#     unshare --mount bash systemd.sh --remove CGROUP     # the control group, when the system has ended
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
if [ "$1" = --remove ]; then
    [ -d "$cgroup/$2" ] || exit 0
    exec find "$cgroup/$2" -depth -type d -exec rmdir {} +
fi
cgroup=$cgroup/$1
bin=$2
folder=$3
# Where the caller's is out of sight, as in some containers, it stays in that.
{ mkdir "$cgroup" && echo 0 >"$cgroup/cgroup.procs"; } || true
umount /sys/fs/cgroup
ip link set lo up
mkdir -p "$folder/redis" "$folder/tmp"
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/folder /mnt/etc /mnt/var /mnt/work-etc /mnt/work-var
# BIN and FOLDER may be under what is hidden next.
cp "$bin/durac" "$bin/libdurac_preload.so" /mnt
mount --bind "$folder" /mnt/folder
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work-etc none /etc
mount -t overlay -o lowerdir=/var,upperdir=/mnt/var,workdir=/mnt/work-var none /var
for own in /dev/shm /home /run /tmp /usr/local /etc/systemd/system; do
    mount -t tmpfs -o mode=755 none "$own"
done
# The journal of earlier systems is not this one's.
rm -rf /var/log/journal
mkdir -p /run/systemd /run/lock /usr/local/bin /usr/local/lib/durac
chmod 1777 /dev/shm /tmp /run/lock
mv /mnt/durac /usr/local/bin
mv /mnt/libdurac_preload.so /usr/local/lib/durac
mount --bind /mnt/folder/redis /var/lib/redis
mount --bind /mnt/folder/tmp /var/tmp
chmod 1777 /var/tmp
chown redis:redis /var/lib/redis
# Only what is asked for is started.
printf '[Unit]\nDefaultDependencies=no\n' >/etc/systemd/system/idle.target
export container=durac
# A namespace has for its root what its first process is in.
exec unshare --cgroup bash -c 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"' - \
    /lib/systemd/systemd --system --unit=idle.target --log-target=null --show-status=no
