package masque

import (
	"net"

	"golang.org/x/net/ipv4"
)

// kernelSocket is a plain socket as quic-go would use it by itself.
type kernelSocket struct {
	*net.UDPConn
	batch *ipv4.PacketConn
}

func newKernelSocket(conn *net.UDPConn) kernelSocket {
	return kernelSocket{conn, ipv4.NewPacketConn(conn)}
}

func (k kernelSocket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	return k.batch.ReadBatch(ms, flags)
}
