package path

import (
	"sync"
	"sync/atomic"
)

// pieceClasses are the sizes of buffers: most packets that are split would fit a common link, some a jumbo frame.
var pieceClasses = [...]int{2048, 16384, MaxPacketBytes}

// pieceBuffer holds a packet that is being joined, or is joined and not released.
type pieceBuffer struct {
	next  *pieceBuffer // in a joiner's list of packets to release
	data  []byte
	class int
}

// PieceBuffers are the buffers that all lanes join packets in. It may be used by any number of joiners at once.
type PieceBuffers struct {
	limitBytes int64
	inUse      atomic.Int64
	pools      [len(pieceClasses)]sync.Pool
}

// NewPieceBuffers makes buffers that take at most limitBytes together while in use.
func NewPieceBuffers(limitBytes int) *PieceBuffers {
	return &PieceBuffers{limitBytes: int64(limitBytes)}
}

// InUseBytes returns how many bytes of buffers are in use. It may be called from any goroutine.
func (p *PieceBuffers) InUseBytes() int64 { return p.inUse.Load() }

// pieceClass returns the smallest class of buffers for that many bytes.
func pieceClass(bytes int) int {
	class := 0
	for class < len(pieceClasses)-1 && pieceClasses[class] < bytes {
		class++
	}
	return class
}

// get returns a buffer of a class, or nil when too much is in use.
func (p *PieceBuffers) get(class int) *pieceBuffer {
	size := int64(pieceClasses[class])
	if p.inUse.Add(size) > p.limitBytes {
		p.inUse.Add(-size)
		return nil
	}
	if b, ok := p.pools[class].Get().(*pieceBuffer); ok {
		return b
	}
	return &pieceBuffer{data: make([]byte, pieceClasses[class]), class: class}
}

func (p *PieceBuffers) put(b *pieceBuffer) {
	b.next = nil
	p.inUse.Add(-int64(len(b.data)))
	p.pools[b.class].Put(b)
}
