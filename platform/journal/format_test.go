package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

func record(id ID, kind, body string) Record {
	return Record{ID: id, Kind: kind, Scope: Scope{Boot: "b", Netns: "cookie:1"}, Body: json.RawMessage(body)}
}

func file(tb testing.TB, records ...Record) []byte {
	tb.Helper()
	out := []byte(header)
	for _, r := range records {
		var err error
		if out, err = appendLine(out, r); err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

func ids(p parsed) []ID {
	var out []ID
	for _, e := range p.entries {
		out = append(out, e.record.ID)
	}
	return out
}

func TestParseCutsTornTailAtEveryByte(t *testing.T) {
	whole := file(t, record(1, "a", `{"x":1}`), record(2, "b", `{"y":"z"}`))
	first := len(file(t, record(1, "a", `{"x":1}`)))
	for end := range whole {
		p, err := parse(whole[:end])
		if err != nil {
			t.Fatalf("cut at %d: %v", end, err)
		}
		want, bytes := 0, 0
		if end >= len(header) {
			bytes = len(header)
		}
		if end >= first {
			want, bytes = 1, first
		}
		if len(p.entries) != want || p.wholeBytes != int64(bytes) || p.damaged != 0 {
			t.Errorf("cut at %d: %d records, %d whole bytes, %d damaged; want %d, %d, 0",
				end, len(p.entries), p.wholeBytes, p.damaged, want, bytes)
		}
	}
}

func TestParseDetectsEveryFlippedBit(t *testing.T) {
	whole := file(t, record(1, "a", `{"x":1}`), record(2, "b", `{"y":2}`))
	first := len(file(t, record(1, "a", `{"x":1}`)))
	for at := len(header); at < first-1; at++ {
		for bit := range 8 {
			bad := bytes.Clone(whole)
			bad[at] ^= 1 << bit
			p, err := parse(bad)
			if err != nil {
				t.Fatalf("byte %d bit %d: %v", at, bit, err)
			}
			// '+' and '-' differ in two bits, and hexadecimal digits have two cases, so only those survive a
			// flip.
			caseOnly := at >= len(header)+2 && at < len(header)+10 && bit == 5
			if !caseOnly && (len(p.entries) != 1 || p.entries[0].record.ID != 2 || p.damaged == 0) {
				t.Errorf("byte %d bit %d: records %v, damaged %d", at, bit, ids(p), p.damaged)
			}
		}
	}
}

func TestParse(t *testing.T) {
	forgotten := file(t, record(3, "a", `1`))
	forgotten[len(header)] = statusForgotten
	double := file(t, record(5, "a", `1`), record(5, "b", `2`))
	tests := []struct {
		name    string
		data    []byte
		want    []ID
		lastID  ID
		damaged int
		err     error
	}{
		{name: "empty"},
		{name: "header only", data: []byte(header)},
		{name: "something else", data: []byte("hello, this is no journal at all"), err: ErrFormat},
		{name: "newer version", data: []byte("aethertunnel-journal 2\n"), err: ErrFormat},
		{name: "forgotten keeps its number used", data: forgotten, lastID: 3},
		{name: "double id", data: double, want: []ID{5}, lastID: 5, damaged: 1},
		{
			name: "zeros between", data: append(append(file(t, record(1, "a", `1`)), "\x00\x00\x00\n"...),
				file(t, record(2, "a", `1`))[len(header):]...), want: []ID{1, 2}, lastID: 2, damaged: 1,
		},
		{
			name: "zeros at the end", data: append(file(t, record(1, "a", `1`)), make([]byte, 100)...),
			want: []ID{1}, lastID: 1,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := parse(test.data)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			got, want := ids(p), test.want
			if len(got) != len(want) || p.lastID != test.lastID || p.damaged != test.damaged {
				t.Fatalf("ids %v last %d damaged %d", got, p.lastID, p.damaged)
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("ids %v, want %v", got, want)
				}
			}
		})
	}
}

func TestAppendLineRefusesOversizedAndNameless(t *testing.T) {
	big, err := json.Marshal(string(bytes.Repeat([]byte("x"), MaxRecordBytes)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := appendLine(nil, record(1, "a", string(big))); !errors.Is(err, ErrFull) {
		t.Errorf("oversized record: %v", err)
	}
	if _, err := appendLine(nil, record(1, "", `1`)); !errors.Is(err, ErrFormat) {
		t.Errorf("record without kind: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(header))
	f.Add(file(f, record(1, "route.rule", `{"table":1}`), record(2, "sysctl.hold", `{"key":"k"}`)))
	f.Add(append(file(f, record(1, "a", `1`)), "+ 00000000 {}\n- zz"...))
	f.Add([]byte(header + "\n\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parse(data)
		if err != nil {
			return
		}
		if p.wholeBytes > int64(len(data)) {
			t.Fatalf("%d whole bytes of %d", p.wholeBytes, len(data))
		}
		again := []byte(header)
		for _, e := range p.entries {
			line, err := appendLine(nil, e.record)
			if errors.Is(err, ErrFull) {
				return // foreign JSON may grow when it is written in our form
			}
			if err != nil {
				t.Fatal(err)
			}
			if data[e.offset] != statusPending {
				t.Fatalf("record %d is not at its offset", e.record.ID)
			}
			again = append(again, line...)
		}
		q, err := parse(again)
		if err != nil || len(q.entries) != len(p.entries) || q.damaged != 0 {
			t.Fatalf("second parse: %d of %d records, %d damaged, %v", len(q.entries), len(p.entries), q.damaged, err)
		}
	})
}
