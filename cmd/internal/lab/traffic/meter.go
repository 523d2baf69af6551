package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// meter tells when the bytes of a stream arrived.
type meter struct {
	interval  time.Duration // 0 keeps no intervals
	bytes     int64
	elapsed   time.Duration // from the start to the last byte
	intervals []int64       // bytes in each interval since the start
}

// add counts bytes that arrived some time after the start.
func (m *meter) add(after time.Duration, bytes int) {
	m.bytes += int64(bytes)
	m.elapsed = after
	if m.interval <= 0 {
		return
	}
	i := min(int(after/m.interval), maxIntervals-1)
	for len(m.intervals) <= i {
		m.intervals = append(m.intervals, 0)
	}
	m.intervals[i] += int64(bytes)
}

// receive reads a stream to its end. The clock starts at the call.
func receive(r io.Reader, interval time.Duration) (meter, error) {
	m := meter{interval: interval}
	buffer := make([]byte, streamBufferBytes)
	start := time.Now()
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			m.add(time.Since(start), n)
		}
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return m, err
		}
	}
}

// The report of a meter: bytes 8 | elapsed ns 8 | number of intervals 4 | bytes of each 8.
const reportBytes = 20

func (m meter) encode() []byte {
	b := make([]byte, 0, reportBytes+8*len(m.intervals))
	b = binary.BigEndian.AppendUint64(b, uint64(m.bytes))
	b = binary.BigEndian.AppendUint64(b, uint64(m.elapsed))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.intervals)))
	for _, bytes := range m.intervals {
		b = binary.BigEndian.AppendUint64(b, uint64(bytes))
	}
	return b
}

// readReport reads the report of a meter with the same interval.
func readReport(r io.Reader, interval time.Duration) (meter, error) {
	var fixed [reportBytes]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return meter{}, fmt.Errorf("read the report: %w", err)
	}
	count := binary.BigEndian.Uint32(fixed[16:])
	if count > maxIntervals {
		return meter{}, fmt.Errorf("the report has %d intervals, want at most %d", count, maxIntervals)
	}
	rest := make([]byte, 8*count)
	if _, err := io.ReadFull(r, rest); err != nil {
		return meter{}, fmt.Errorf("read the report: %w", err)
	}
	m := meter{
		interval: interval,
		bytes:    int64(binary.BigEndian.Uint64(fixed[0:])),
		elapsed:  time.Duration(binary.BigEndian.Uint64(fixed[8:])),
	}
	if m.bytes < 0 || m.elapsed < 0 {
		return meter{}, errors.New("the report is of less than nothing")
	}
	for ; len(rest) > 0; rest = rest[8:] {
		m.intervals = append(m.intervals, int64(binary.BigEndian.Uint64(rest)))
	}
	return m, nil
}

// streamBufferBytes is how much bulk streams write and read at once.
const streamBufferBytes = 256 << 10
