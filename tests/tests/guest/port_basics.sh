refault-net peer
modprobe rdma_ucm
name=$(netdev_of $near)
peer_name=$($peer sh -c 'basename /sys/class/net/e*')

ping -c 3 -W 10 10.77.0.2
rounds 10.77.0.2 20
for pair in pkts bytes; do
    until_is "$(counter $near sent_$pair)" counter $far rcvd_$pair
    until_is "$(counter $far sent_$pair)" counter $near rcvd_$pair
    test "$(counter $near sent_$pair)" -gt 20
done
test "$(counter $near icrc_error)$(counter $far icrc_error)" = 00
rdma statistic show link $(rdma_of $near)/1 | grep -w sent_pkts

# Software computes and checks the checksums of TCP, not the NIC.
head -c 2000000 /dev/urandom >/tmp/sent
$peer timeout 100 python3 -c '
import socket
connection = socket.create_server(("10.77.0.2", 5000)).accept()[0]
with open("/tmp/received", "wb") as out:
    while data := connection.recv(65536):
        out.write(data)' &
server=$!
python3 -c '
import socket, time
while True:
    try:
        connection = socket.create_connection(("10.77.0.2", 5000))
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
connection.sendall(open("/tmp/sent", "rb").read())'
wait $server
cmp /tmp/sent /tmp/received
test "$(cat /sys/class/net/$name/statistics/rx_errors)" = 0

ip link set $name mtu 9000
$peer ip link set $peer_name mtu 9000
ping -c 2 -W 10 -s 8972 -M do 10.77.0.2
refused ip link set $name mtu 9001
refused ip link set $name mtu 67
ibv_devinfo -d $(rdma_of $near) | grep -w 'active_mtu:.*4096'
rounds 10.77.0.2 5

ip link set $name address 02:11:22:33:44:55
until_is yes has_gid $near fe80:0000:0000:0000:0011:22ff:fe33:4455
ping -c 2 -W 10 10.77.0.2
rounds 10.77.0.2 5

modprobe 8021q
ip link add link $name name v0 type vlan id 7
ip address add 10.78.0.1/24 dev v0
ip link set v0 up
$peer ip link add link $peer_name name v1 type vlan id 7
$peer ip address add 10.78.0.2/24 dev v1
$peer ip link set v1 up
until_is yes has_gid $near ffff:0a4e:0001
until_is yes has_gid $far ffff:0a4e:0002
ping -c 2 -W 10 10.78.0.2
rounds 10.78.0.2 5

ip address add fd00::1/64 dev $name nodad
$peer ip address add fd00::2/64 dev $peer_name nodad
until_is yes has_gid $near fd00:0000:0000:0000:0000:0000:0000:0001
until_is yes has_gid $far fd00:0000:0000:0000:0000:0000:0000:0002
ping -c 2 -W 10 fd00::2
rounds fd00::2 5

for round in 1 2 3; do
    ip link set $name down
    until_is 0 $peer cat /sys/class/net/$peer_name/carrier
    until_is '1: DOWN' port_state $far
    ip link set $name up
    until_is 1 $peer cat /sys/class/net/$peer_name/carrier
    until_is '4: ACTIVE' port_state $far
done
until_is yes has_gid $near ffff:0a4d:0001
ping -c 2 -W 10 10.77.0.2
rounds 10.77.0.2 5
echo all done
