package dataplane

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/tun"
)

const (
	// peerQueuePackets bounds what waits for the carrier of one peer. A full TCP super-packet is 48 packets.
	peerQueuePackets = 128
	// nicQueuePackets bounds what waits for the NIC writer. A carrier never waits for it, since QUIC drops what is
	// not fetched at once and counts nothing; so the queue covers some 10 ms of 1 Gbit/s, as long as a busy machine
	// may keep the writer from running.
	nicQueuePackets = 1024
	// writerBatchPackets is how many packets go to the NIC at once; neighbours of a flow are joined.
	writerBatchPackets = 64
	// packetBufferBytes is the longest packet taken from the NIC. Carriers take less.
	packetBufferBytes = 2048
	// icmpPerSecond and icmpBurst bound the ICMP errors sent to one peer, and to our own host (RFC 1812 section
	// 4.3.2.8, RFC 4443 section 2.4 f). Each has a bound of its own, so that none can use up another's.
	icmpPerSecond, icmpBurst = 200, 50
	// reconnectGrace is how long after the end of a peer's last carrier its absence is not reported to senders: most
	// are back by then, and a retransmission saves what an error would make an application give up.
	reconnectGrace = 5 * time.Second
)

// PeerID names a peer. The control loop uses the node's id.
type PeerID [32]byte

// Carrier brings inner packets to one peer and back: a CONNECT-IP session. The engine calls each method from one
// goroutine, both at the same time.
type Carrier interface {
	// SendPacket takes one IP packet and may block while the carrier is congested, but returns once the carrier has
	// ended. The slice stays the caller's. A packet that does not fit gives a *TooBigError, after which the carrier
	// is still good; any other error ends the carrier.
	SendPacket(packet []byte) error
	// ReceivePacket returns the next packet; the slice is the caller's from then on.
	ReceivePacket(ctx context.Context) ([]byte, error)
}

// Config holds what an engine needs for its whole life.
type Config struct {
	NIC tun.Device // the engine reads and writes it; closing it stays the caller's task and ends Run
}

// Engine is the dataplane of one daemon. Use New.
type Engine struct {
	nic        tun.Device
	current    atomic.Pointer[routing]
	toNIC      chan []byte
	buffers    sync.Pool // of *packetBuffer
	drops      [reasonCount]atomic.Uint64
	hostErrors *rate.Limiter // ICMP errors sent to our own host

	mu    sync.Mutex // guards peers, the attachments of each, and the passing of turns
	peers map[PeerID]*peer
}

// New makes an engine that knows no peer and passes nothing until Apply.
func New(cfg Config) *Engine {
	e := &Engine{
		nic:        cfg.NIC,
		toNIC:      make(chan []byte, nicQueuePackets),
		hostErrors: rate.NewLimiter(icmpPerSecond, icmpBurst),
		peers:      make(map[PeerID]*peer),
	}
	e.buffers.New = func() any { return new(packetBuffer) }
	e.current.Store(&routing{replaced: make(chan struct{})})
	return e
}

// packetBuffer holds one packet read from the NIC until a carrier has taken it.
type packetBuffer [packetBufferBytes]byte

// Run moves packets until ctx ends, when it returns nil, or the NIC fails; a NIC closed earlier than that gives an
// error that matches tun.ErrClosed. It returns after the last of its goroutines has ended. The caller closes the NIC
// when ctx ends: a blocking read ends no other way. Run is called once.
func (e *Engine) Run(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(contained(func() error { return e.readNIC(groupCtx) }))
	group.Go(contained(func() error { return e.writeNIC(groupCtx) }))
	err := group.Wait()
	if ctx.Err() != nil {
		return nil // what the parts say at the end of ctx is how they noticed it
	}
	return err
}
