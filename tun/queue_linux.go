package tun

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"
)

// queue reads and writes whole packets on the device's descriptor. It waits with Go's own poller: a thread of its own in
// poll(2), on a descriptor that the poller does not know, costs twice to four times the CPU time for each packet that was
// waited for and wakes no sooner (BenchmarkWake). The driver's Close ends both directions.
type queue struct {
	raw      syscall.RawConn
	name     string
	offloads Offloads

	read  queueRead  // the only reader's
	write queueWrite // the only writer's
}

// queueRead is a read that is under way, kept here so that none of it is allocated.
type queueRead struct {
	attempt func(fd uintptr) bool
	packets []Packet
	n, left int // packets read, bytes of the budget left
	block   bool
	errno   unix.Errno
	err     error // an ErrUnreadable
}

// queueWrite is a write that is under way, kept here so that none of it is allocated.
type queueWrite struct {
	attempt    func(fd uintptr) bool
	header     [virtioHeaderBytes]byte
	iov        [1 + MaxPieces]unix.Iovec
	n          int // of iov in use
	errno      unix.Errno
	refused    *RefusedError // the last one, to be given again for the same error
	refusedFor unix.Errno
}

func newQueue(dev wgtun.Device, name string, o Offloads) (*queue, error) {
	raw, err := dev.File().SyscallConn()
	if err != nil {
		return nil, err
	}
	return queueOf(raw, name, o), nil
}

func queueOf(raw syscall.RawConn, name string, o Offloads) *queue {
	q := &queue{raw: raw, name: name, offloads: o}
	q.read.attempt, q.write.attempt = q.attemptRead, q.attemptWrite
	return q
}

// readPackets is Device.ReadPackets, or with block false Device.TryReadPackets.
func (q *queue) readPackets(packets []Packet, budgetBytes int, block bool) (int, error) {
	r := &q.read
	r.packets, r.n, r.left, r.block = packets, 0, budgetLeft(budgetBytes), block
	r.errno, r.err = 0, nil
	err := q.raw.Read(r.attempt)
	r.packets = nil // the buffers are the caller's
	switch {
	case err != nil:
		return r.n, q.pollError("read", err)
	case r.errno != 0:
		return r.n, q.readError(r.errno)
	}
	return r.n, r.err
}

// attemptRead reads what is there. It reports false if the poller shall wait for more.
func (q *queue) attemptRead(fd uintptr) bool {
	r := &q.read
	for r.n < len(r.packets) && r.left > 0 {
		p := &r.packets[r.n]
		errno, err := q.readOne(fd, p)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return r.n > 0 || !r.block
		case errno != 0 || err != nil:
			r.errno, r.err = errno, err
			return true
		default:
			r.left -= len(p.Data)
			r.n++
		}
	}
	return true
}

// readOne reads one packet without waiting: the virtio header into the headroom's last bytes, the packet behind it. The
// error is an ErrUnreadable.
func (q *queue) readOne(fd uintptr, p *Packet) (unix.Errno, error) {
	const all = Headroom + MaxPacketBytes
	buf, from := p.Data[:all], Headroom
	if q.offloads.VirtioHeader {
		from -= virtioHeaderBytes
	}
	// Not through the scheduler: the call does not wait, so nobody would gain by it.
	n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[from])), uintptr(all-from))
	if errno != 0 {
		return errno, nil
	}
	end := from + int(n)
	if end < Headroom {
		return 0, errTruncated
	}
	o := Offload{}
	if q.offloads.VirtioHeader {
		var err error
		o, err = decodeVirtio((*[virtioHeaderBytes]byte)(buf[from:]), buf[Headroom:end])
		if err != nil {
			return 0, err
		}
	}
	p.Data, p.Offload = p.Data[Headroom:end], o
	return 0, nil
}

// readError is what a failed read means to the caller.
func (q *queue) readError(errno unix.Errno) error {
	switch errno {
	case unix.EINVAL: // the kernel took the packet from the queue and found no virtio header to describe it
		return errKind
	case unix.ENOMEM, unix.ENOBUFS:
		return fmt.Errorf("%w: %w", ErrUnreadable, errno)
	}
	return q.pollError("read", errno)
}

// pollError is what an error of the descriptor as a whole means: Go's poller says only that it is closed, or "not
// pollable" when the device was deleted under us, so the kernel is asked whether it still has a device.
func (q *queue) pollError(operation string, err error) error {
	if errors.Is(err, unix.EBADFD) || errors.Is(err, unix.ENODEV) {
		return ErrClosed
	}
	var ioctlErr error
	closed := q.raw.Control(func(fd uintptr) {
		var request unix.Ifreq
		ioctlErr = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, &request)
	})
	if closed != nil || errors.Is(ioctlErr, unix.EBADFD) {
		return ErrClosed
	}
	return fmt.Errorf("%s TUN device %s: %w", operation, q.name, err)
}

// writePacket is Device.WritePacket.
func (q *queue) writePacket(pieces [][]byte, o Offload) error {
	if err := q.offloads.refuse(pieces, o); err != nil {
		return err
	}
	w := &q.write
	w.n = 0
	if q.offloads.VirtioHeader {
		headers := 0
		if o.PartialChecksum {
			headers = o.headerBytes(pieces[0])
		}
		encodeVirtio(&w.header, o, headers)
		w.add(w.header[:])
	}
	for _, piece := range pieces {
		w.add(piece)
	}
	err := q.raw.Write(w.attempt)
	switch {
	case err != nil:
		return q.pollError("write", err)
	case w.errno != 0:
		return q.writeError(w.errno)
	}
	return nil
}

func (w *queueWrite) add(piece []byte) {
	w.iov[w.n].Base = unsafe.SliceData(piece)
	w.iov[w.n].SetLen(len(piece))
	w.n++
}

// attemptWrite writes once; there is nothing to wait for.
func (q *queue) attemptWrite(fd uintptr) bool {
	w := &q.write
	for {
		_, _, w.errno = unix.RawSyscall(
			unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(w.n),
		)
		if w.errno != unix.EINTR {
			return true
		}
	}
}

// writeError is what a failed write means to the caller. While the interface is down every packet meets the same error,
// so it is made once.
func (q *queue) writeError(errno unix.Errno) error {
	if errno == unix.EBADFD || errno == unix.ENODEV {
		return ErrClosed
	}
	w := &q.write
	if w.refused == nil || w.refusedFor != errno {
		w.refused, w.refusedFor = &RefusedError{Err: errno}, errno
	}
	return w.refused
}
