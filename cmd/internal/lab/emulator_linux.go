package lab

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/impair"
)

// A Direction tells the two ways along a link apart, in the order in which its ends were given.
type Direction int

// The two directions of a link between a and b.
const (
	AToB Direction = iota
	BToA
)

// String returns "a to b" or "b to a".
func (d Direction) String() string {
	if d == AToB {
		return "a to b"
	}
	return "b to a"
}

// EmulatorConfig is what an emulated link has from the start.
type EmulatorConfig struct {
	// MTU is what both interfaces believe the link carries, in bytes of IP packet; 0 is 1500. A smaller
	// MTU of the path behind, a black hole, is for [impair.Impairments].
	MTU int
	// Seed decides what chance does; print it when a test fails.
	Seed uint64
}

// An Emulator is an Ethernet link between two namespaces whose frames pass through this process, one
// thread per direction, and meet there what package impair decides. All methods may be called from
// several goroutines.
type Emulator struct {
	pumps [2]*pump
	stop  int // eventfd, readable once the link is being closed
	once  sync.Once
	ended sync.WaitGroup
	err   error // of Close
}

// Emulate makes an interface at either place, sets both up and joins them. Without [Emulator.Set] the
// link is as good as it gets. The interfaces offer no offloads: each frame is one packet of the wire,
// with its checksums complete. They vanish with [Emulator.Close].
func Emulate(a, b Interface, config EmulatorConfig) (*Emulator, error) {
	e, err := newEmulator(a, b, config)
	if err != nil {
		return nil, fmt.Errorf("emulate a link of %v and %v: %w", a, b, err)
	}
	for _, p := range e.pumps {
		e.ended.Go(func() {
			p.err = onFreshThread(func() error { return p.run(e.stop) })
		})
	}
	return e, nil
}

func newEmulator(a, b Interface, config EmulatorConfig) (*Emulator, error) {
	mtu := config.MTU
	if mtu == 0 {
		mtu = 1500
	}
	fdA, err := openTAP(a, mtu)
	if err != nil {
		return nil, err
	}
	fdB, err := openTAP(b, mtu)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fdA))
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make an eventfd: %w", err), unix.Close(fdA), unix.Close(fdB))
	}
	epoch := time.Now()
	return &Emulator{stop: stop, pumps: [2]*pump{
		AToB: newPump(a, fdA, fdB, epoch, config.Seed, mtu),
		BToA: newPump(b, fdB, fdA, epoch, ^config.Seed, mtu),
	}}, nil
}

// Set changes what a direction does to frames from now on; see [impair.Line.Set] for those under way.
func (e *Emulator) Set(d Direction, i impair.Impairments) error {
	p := e.pumps[d]
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.line.Set(p.now(), i); err != nil {
		return fmt.Errorf("set the link %v: %w", d, err)
	}
	return nil
}

// SetBoth changes both directions to the same.
func (e *Emulator) SetBoth(i impair.Impairments) error {
	return errors.Join(e.Set(AToB, i), e.Set(BToA, i))
}

// Counters are those of the line, and what the devices at its ends did not take.
type Counters struct {
	impair.Counters
	// Refused is how many delivered frames the receiving interface did not take, because it was down or
	// out of memory.
	Refused int64
}

// Counters returns the counters of a direction.
func (e *Emulator) Counters(d Direction) Counters {
	p := e.pumps[d]
	p.mu.Lock()
	defer p.mu.Unlock()
	return Counters{Counters: p.line.Counters(), Refused: p.refused}
}

// Overruns returns how many frames the kernel dropped at the sending interface of a direction because
// this process did not read them in time. Anything but 0 means that the machine was too busy for what
// was asked of it.
func (e *Emulator) Overruns(d Direction) (int64, error) {
	from := e.pumps[d].from
	link, err := from.Namespace.handle.LinkByName(from.Name)
	if err != nil {
		return 0, fmt.Errorf("read statistics of %v: %w", from, err)
	}
	return int64(link.Attrs().Statistics.TxDropped), nil
}

// Close takes the link and both interfaces away and returns the first error its threads met. Frames
// under way are dropped. A second Close returns the same.
func (e *Emulator) Close() error {
	e.once.Do(func() {
		_, err := unix.Write(e.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		e.ended.Wait()
		e.err = errors.Join(err, e.pumps[AToB].err, e.pumps[BToA].err,
			unix.Close(e.pumps[AToB].in), unix.Close(e.pumps[BToA].in), unix.Close(e.stop))
		if e.err != nil {
			e.err = fmt.Errorf("emulated link: %w", e.err)
		}
	})
	return e.err
}

// tapQueueFrames is how many frames wait in the kernel for this process: 100 ms of a fast sender.
const tapQueueFrames = 8192

// openTAP makes a TAP interface, sets it up and returns its descriptor, which does not block.
func openTAP(i Interface, mtu int) (int, error) {
	fd := -1
	err := i.Namespace.Do(func() error {
		ifreq, err := unix.NewIfreq(i.Name)
		if err != nil {
			return fmt.Errorf("name %q: %w", i.Name, err)
		}
		ifreq.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		f, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
		}
		if err := unix.IoctlIfreq(f, unix.TUNSETIFF, ifreq); err != nil {
			return errors.Join(fmt.Errorf("make interface %v: %w", i, err), unix.Close(f))
		}
		fd = f
		return nil
	})
	if err != nil {
		return -1, err
	}
	if err := configureTAP(i, mtu); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func configureTAP(i Interface, mtu int) error {
	handle := i.Namespace.handle
	link, err := handle.LinkByName(i.Name)
	if err == nil {
		err = handle.LinkSetTxQLen(link, tapQueueFrames)
	}
	if err != nil {
		return fmt.Errorf("prepare %v: %w", i, err)
	}
	return errors.Join(i.SetMTU(mtu), i.SetUp())
}
