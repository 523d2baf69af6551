// Package dataplane moves inner IP packets between the virtual NIC and the peers.
//
// An [Engine] owns no policy. The control loop hands it immutable snapshots ([Engine.Apply]) that say which
// addresses belong to which peer, and carriers ([Engine.Attach]) that bring packets to one peer and back. The engine
// classifies, checks addresses, routes, and counts every packet it does not pass on.
//
//	NIC reader ──► egress check, route ──► queue of the peer ──► carrier        (one goroutine per carrier)
//	carrier ──► source check, route ──► NIC writer, or queue of another peer    (one goroutine per carrier)
//
// Within a flow nothing is reordered: it has one peer, and there is one goroutine per stage.
package dataplane

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/tun"
)

const (
	// peerQueuePackets bounds what waits for one carrier. A full TCP super-packet is 48 packets.
	peerQueuePackets = 128
	// nicQueuePackets bounds what waits for the NIC writer.
	nicQueuePackets = 256
	// writerBatchPackets is how many packets go to the NIC at once; neighbours of a flow are joined.
	writerBatchPackets = 64
	// packetBufferBytes holds headroom and one packet of any MTU that the control loop may set.
	packetBufferBytes = 2048
	// icmpPerSecond and icmpBurst bound the ICMP errors we send (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
	icmpPerSecond, icmpBurst = 200, 50
)

// PeerID names a peer. The control loop uses the node's id.
type PeerID [32]byte

// Carrier brings inner packets to one peer and back: a CONNECT-IP session.
type Carrier interface {
	// SendPacket takes one IP packet and may block while the carrier is congested. The slice stays the
	// caller's. A packet that does not fit gives a *TooBigError, after which the carrier is still good;
	// any other error ends the carrier.
	SendPacket(packet []byte) error
	// ReceivePacket returns the next packet; the slice is the caller's from then on.
	ReceivePacket(ctx context.Context) ([]byte, error)
}

// TooBigError says that a packet does not fit into what the carrier sends.
type TooBigError struct {
	MaxPacketBytes int // the longest packet that fits now
}

// Error names the limit.
func (e *TooBigError) Error() string {
	return fmt.Sprintf("packet too big for the carrier, which takes %d bytes", e.MaxPacketBytes)
}

// Config holds what an engine needs for its whole life.
type Config struct {
	NIC tun.Device // the engine reads and writes it; closing it stays the caller's task and ends Run
}

// Engine is the dataplane of one daemon. Use New.
type Engine struct {
	nic     tun.Device
	current atomic.Pointer[routing]
	toNIC   chan []byte
	buffers sync.Pool
	drops   [reasonCount]atomic.Uint64
	icmp    *rate.Limiter

	mu    sync.Mutex // guards peers and each peer's attachments
	peers map[PeerID]*peer
}

// New makes an engine that knows no peer and passes nothing until Apply.
func New(cfg Config) *Engine {
	e := &Engine{
		nic:   cfg.NIC,
		toNIC: make(chan []byte, nicQueuePackets),
		icmp:  rate.NewLimiter(icmpPerSecond, icmpBurst),
		peers: make(map[PeerID]*peer),
	}
	e.buffers.New = func() any { return new(packetBuffer) }
	e.current.Store(&routing{})
	return e
}

// packetBuffer holds one packet read from the NIC.
type packetBuffer struct {
	data [packetBufferBytes]byte
	size int
}

func (b *packetBuffer) packet() []byte { return b.data[tun.Headroom : tun.Headroom+b.size] }

// Run moves packets until ctx ends or the NIC fails, and returns after the last of its goroutines has ended. The
// caller closes the NIC when ctx ends: a blocking read ends no other way.
func (e *Engine) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.readNIC(ctx) })
	group.Go(func() error { return e.writeNIC(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// readNIC drains the NIC into the queues of the peers.
func (e *Engine) readNIC(ctx context.Context) error {
	batch := e.nic.BatchSize()
	held := make([]*packetBuffer, batch)
	views := make([][]byte, batch)
	sizes := make([]int, batch)
	for i := range held {
		held[i] = e.buffers.Get().(*packetBuffer) //nolint:forcetypeassert // the pool holds nothing else
		views[i] = held[i].data[:]
	}
	for {
		n, err := e.nic.Read(views, sizes, tun.Headroom)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("dataplane: %w", err)
		}
		snapshot := e.current.Load()
		for i := range n {
			held[i].size = sizes[i]
			if e.fromNIC(ctx, snapshot, held[i]) {
				held[i] = e.buffers.Get().(*packetBuffer) //nolint:forcetypeassert // the pool holds nothing else
				views[i] = held[i].data[:]
			}
		}
	}
}

// writeNIC hands received packets to the host, as many at once as are waiting.
func (e *Engine) writeNIC(ctx context.Context) error {
	// Each buffer has room for a whole super-packet, because the device joins neighbours of a flow in the first one's.
	room := make([][]byte, writerBatchPackets)
	for i := range room {
		room[i] = make([]byte, tun.Headroom+tun.MaxPacketBytes)
	}
	views := make([][]byte, 0, writerBatchPackets)
	for {
		views = views[:0]
		select {
		case p := <-e.toNIC:
			views = append(views, fill(room[0], p))
		case <-ctx.Done():
			return ctx.Err()
		}
	gather:
		for len(views) < len(room) {
			select {
			case p := <-e.toNIC:
				views = append(views, fill(room[len(views)], p))
			default:
				break gather
			}
		}
		if err := e.nic.Write(views, tun.Headroom); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, tun.ErrClosed) {
				return fmt.Errorf("dataplane: %w", err)
			}
			// The host refused a packet (interface down, no memory): the device is still good.
			e.drops[DropNICRefused].Add(1)
		}
	}
}

func fill(room, packet []byte) []byte {
	return room[:tun.Headroom+copy(room[tun.Headroom:], packet)]
}
