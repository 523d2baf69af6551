package dataplane

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/dataplane/sched"
	"github.com/aethertunnel/aethertunnel/tun"
)

const (
	// nicQueuePackets bounds what waits for the NIC writer. A carrier never waits for it, since QUIC drops what is
	// not fetched at once and counts nothing; so the queue covers some 10 ms of 1 Gbit/s, as long as a busy machine
	// may keep the writer from running.
	nicQueuePackets = 1024
	// pieceBytes bounds the buffers of packets that lack pieces, of all lanes together.
	pieceBytes = 16 << 20
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
	// MaxPacketBytes is the longest packet that fits at this time.
	MaxPacketBytes() int
	// ReceivePacket returns the next packet; the slice is the caller's from then on.
	ReceivePacket(ctx context.Context) ([]byte, error)
}

// Engine is the dataplane of one daemon. Use New.
type Engine struct {
	nic        atomic.Pointer[nic] // nil before Run
	writing    sync.Mutex          // held while somebody writes to the NIC, once per batch
	started    time.Time           // where the dataplane's clock begins
	seed       uint64              // of flow hashes
	current    atomic.Pointer[routing]
	lanes      laneTable
	resets     resetTable
	kicks      kicks
	keeper     keeper
	pieces     *path.PieceBuffers // of packets that came in pieces
	toNIC      chan []byte        // single packets of carriers, and errors for our own host
	buffers    buffers
	drops      [reasonCount]atomic.Uint64
	hostErrors *rate.Limiter // ICMP errors sent to our own host

	mu    sync.Mutex // guards peers, the attachments of each, and the passing of turns; before queueMu
	peers map[PeerID]*peer

	queueMu sync.Mutex // guards the queues of all peers; taken once per batch
	queues  *sched.Pool[*buffer]
}

// nic is the virtual NIC with what it can do.
type nic struct {
	tun.Device
	join packet.JoinConfig
}

// New makes an engine that knows no peer and passes nothing until Apply.
func New() *Engine {
	e := &Engine{
		started:    time.Now(),
		seed:       rand.Uint64(), // ChaCha8, seeded by the system
		toNIC:      make(chan []byte, nicQueuePackets),
		hostErrors: rate.NewLimiter(icmpPerSecond, icmpBurst),
		peers:      make(map[PeerID]*peer),
		kicks:      kicks{wake: make(chan struct{}, 1)},
		keeper:     newKeeper(),
		lanes:      newLaneTable(),
		resets:     newResetTable(),
		pieces:     path.NewPieceBuffers(pieceBytes),
	}
	e.queues = e.newQueues()
	e.current.Store(&routing{})
	return e
}

// Run moves packets between the NIC, carriers and lanes until ctx ends, when it returns nil, or the NIC fails; a NIC
// closed earlier than that gives an error that matches tun.ErrClosed. It returns after the last of its goroutines has
// ended. The caller closes the NIC when ctx ends: a blocking read ends no other way. Run is called once.
func (e *Engine) Run(ctx context.Context, device tun.Device) error {
	can := device.Offloads()
	e.nic.Store(&nic{device, packet.JoinConfig{TCP: can.TCP, UDP: can.UDP, VerifyFull: true, Seed: e.seed}})
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(contained(func() error { return e.readNIC(groupCtx) }))
	group.Go(contained(func() error { return e.writeNIC(groupCtx) }))
	group.Go(contained(func() error { return e.serveKicked(groupCtx) }))
	group.Go(contained(func() error { return e.keepLanes(groupCtx) }))
	err := group.Wait()
	if ctx.Err() != nil {
		return nil // what the parts say at the end of ctx is how they noticed it
	}
	return err
}

// now is the time for queues and lanes: nanoseconds of a clock that does not go back.
func (e *Engine) now() int64 { return int64(time.Since(e.started)) }
