package lab

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/impair"
)

// readsPerTurn bounds how long frames that are due wait for frames that come in.
const readsPerTurn = 32

// A pump moves the frames of one direction from the device they are sent on, through the line, to the
// other device.
type pump struct {
	from  Interface
	in    int // TAP descriptor of from
	out   int // TAP descriptor of the far end
	epoch time.Time
	err   error // of run, for after it has returned

	mu      sync.Mutex // guards what follows; held while frames move, not while waiting
	line    *impair.Line
	refused int64
	buffer  []byte
}

func newPump(from Interface, in, out int, epoch time.Time, seed uint64, mtu int) *pump {
	const ethernetBytes = 14 + 4 // with a VLAN tag
	return &pump{
		from: from, in: in, out: out, epoch: epoch,
		line: impair.NewLine(seed), buffer: make([]byte, max(mtu, 65535)+ethernetBytes),
	}
}

func (p *pump) now() time.Duration { return time.Since(p.epoch) }

// run moves frames until stop becomes readable. It needs a thread of its own, to wait with the
// precision of the clock.
func (p *pump) run(stop int) error {
	if err := sharpTimers(); err != nil {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(p.in), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
	for {
		more, next, err := p.turn()
		if err != nil {
			return fmt.Errorf("move frames from %v: %w", p.from, err)
		}
		wait := time.Duration(0)
		if !more {
			wait = next - p.now()
		}
		if err := pollFor(fds, wait, next != impair.Never || more); err != nil {
			return fmt.Errorf("wait for frames from %v: %w", p.from, err)
		}
		if fds[1].Revents != 0 {
			return nil
		}
	}
}

// turn reads some frames and delivers those due. It tells whether there may be more to read at once,
// and when the next is due.
func (p *pump) turn() (more bool, next time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	more = true
	for range readsPerTurn {
		n, err := unix.Read(p.in, p.buffer)
		if errors.Is(err, unix.EAGAIN) {
			more = false
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, 0, err
		}
		p.line.Offer(p.now(), p.buffer[:n])
	}
	for {
		frame, ok := p.line.Take(p.now())
		if !ok {
			return more, p.line.Next(), nil
		}
		if err := p.deliver(frame); err != nil {
			return false, 0, err
		}
	}
}

// deliver hands a frame to the far end. A device that is down or out of memory loses it, as an
// interface card would.
func (p *pump) deliver(frame []byte) error {
	for {
		_, err := unix.Write(p.out, frame)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EIO), errors.Is(err, unix.EAGAIN),
			errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINVAL):
			p.refused++
			return nil
		default:
			return fmt.Errorf("deliver: %w", err)
		}
	}
}
