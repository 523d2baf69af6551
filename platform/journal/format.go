package journal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strings"
)

const (
	header          = "aethertunnel-journal 1\n"
	statusPending   = '+'
	statusForgotten = '-'
	prefixBytes     = 2 + 8 + 1 // status, space, sum, space
)

// appendLine appends the line of a pending record to dst.
func appendLine(dst []byte, r Record) ([]byte, error) {
	if r.Kind == "" {
		return nil, fmt.Errorf("encode a record: %w: empty kind", ErrFormat)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if prefixBytes+len(text)+1 > MaxRecordBytes {
		return nil, fmt.Errorf("encode a record: %w: %d bytes in one record", ErrFull, len(text))
	}
	dst = fmt.Appendf(dst, "%c %08x ", statusPending, checksum(text))
	dst = append(dst, text...)
	return append(dst, '\n'), nil
}

func checksum(text []byte) uint32 { return crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)) }

// parsed is the content of a journal file.
type parsed struct {
	entries    []entry
	lastID     ID
	damaged    int
	wholeBytes int64 // where whole lines end; what follows was cut short
}

// parse reads a journal file. It fails with ErrFormat only when the header is that of something else; damage
// to records is counted instead, because the others must still be undone.
func parse(data []byte) (parsed, error) {
	var p parsed
	if len(data) < len(header) && strings.HasPrefix(header, string(data)) {
		return p, nil
	}
	if !bytes.HasPrefix(data, []byte(header)) {
		return p, fmt.Errorf("read the journal: %w", ErrFormat)
	}
	seen := map[ID]bool{}
	p.wholeBytes = int64(len(header))
	for at := len(header); at < len(data); {
		end := bytes.IndexByte(data[at:], '\n')
		if end < 0 {
			return p, nil
		}
		line := data[at : at+end]
		next := at + end + 1
		record, pending, ok := parseLine(line)
		switch {
		case !ok && next >= len(data):
			return p, nil
		case !ok || seen[record.ID]:
			p.damaged++
		case pending:
			p.entries = append(p.entries, entry{record: record, offset: int64(at)})
			fallthrough
		default:
			seen[record.ID] = true
			p.lastID = max(p.lastID, record.ID)
		}
		at = next
		p.wholeBytes = int64(at)
	}
	return p, nil
}

// parseLine decodes one line without its end.
func parseLine(line []byte) (r Record, pending, ok bool) {
	if len(line) < prefixBytes || len(line)+1 > MaxRecordBytes || line[1] != ' ' || line[prefixBytes-1] != ' ' {
		return r, false, false
	}
	if line[0] != statusPending && line[0] != statusForgotten {
		return r, false, false
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[2:10]); err != nil {
		return r, false, false
	}
	text := line[prefixBytes:]
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	if checksum(text) != want {
		return r, false, false
	}
	if err := json.Unmarshal(text, &r); err != nil || r.Kind == "" {
		return Record{}, false, false
	}
	return r, line[0] == statusPending, true
}
