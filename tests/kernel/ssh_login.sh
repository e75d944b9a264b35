#!/bin/sh -e
# In private mount and network namespaces: $1 the unpacked packages, $2 a scratch directory, $3 the command of the login.
tree=$1 scratch=$2 command=$3
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/keys"
chmod 755 "$scratch"
mount -t overlay overlay -o "lowerdir=$tree/usr:/usr" /usr
mount -t overlay overlay -o "lowerdir=$tree/etc:/etc,upperdir=$scratch/upper,workdir=$scratch/work" /etc
mount -t tmpfs tmpfs /run; mkdir -p /run/sshd
chmod 4755 /usr/bin/sudo 2>/dev/null || true
echo 'eve:x:1777:1777::/tmp:/bin/sh' >>/etc/passwd
echo 'eve:x:1777:' >>/etc/group
echo 'eve:*:19000:0:99999:7:::' >>/etc/shadow
echo 'sshd:x:1778:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd
echo 'eve ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/eve; chmod 440 /etc/sudoers.d/eve
ssh-keygen -q -t ed25519 -N '' -f "$scratch/keys/host"
ssh-keygen -q -t ed25519 -N '' -f "$scratch/keys/eve"
cat >"$scratch/sshd.conf" <<E
Port 2222
ListenAddress 127.0.0.1
HostKey $scratch/keys/host
AuthorizedKeysFile $scratch/keys/eve.pub
StrictModes no
UsePAM no
PidFile none
E
/usr/sbin/sshd -D -e -f "$scratch/sshd.conf" &
trap "kill $!" EXIT
for _ in 1 2 3 4 5 6 7 8 9 10; do
  ssh -q -tt -p 2222 -i "$scratch/keys/eve" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null eve@127.0.0.1 "$command" </dev/null && exit 0
  sleep 1
done
exit 1
