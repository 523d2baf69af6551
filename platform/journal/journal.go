package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
)

// Bounds of a journal. A daemon makes a few dozen changes; the bounds only keep a fault from growing the
// file.
const (
	// FileName is the name of the journal inside the state directory.
	FileName = "journal"
	// MaxRecordBytes bounds one line of the file, its end included.
	MaxRecordBytes = 64 << 10
	// MaxPending bounds the pending records, those of other namespaces included.
	MaxPending = 8192
	// MaxElsewhere bounds the pending records of other network namespaces; the oldest are evicted on Open.
	MaxElsewhere = 1024
	// MaxFileBytes bounds the file.
	MaxFileBytes = 16 << 20
)

// ID names a record within its journal. IDs rise and are not used twice while the journal is open.
type ID uint64

// Change describes one change to the host before it is made.
type Change struct {
	// Kind selects the [Undoer], for example "route.rule".
	Kind string
	// Body is marshalled to JSON. It holds what will be set and what was there before.
	Body any
}

// Recorder is what a package needs that changes the host. [*Journal] implements it.
type Recorder interface {
	// Record puts the changes on disk, all or none, and returns one ID each in order. When it returns an
	// error the host must not be changed.
	Record(changes ...Change) ([]ID, error)
	// Forget drops records whose changes have been taken back. Unknown ids are ignored.
	Forget(ids ...ID) error
}

// Scope is where a change lives: the boot of the machine and the network namespace.
type Scope struct {
	// Boot is the kernel's random boot id.
	Boot string `json:"boot"`
	// Netns is "cookie:N" (SO_NETNS_COOKIE) or, on kernels without it, "inode:N".
	Netns string `json:"netns"`
}

// Record is one pending change as it is in the file.
type Record struct {
	ID    ID              `json:"id"`
	Kind  string          `json:"kind"`
	Scope Scope           `json:"scope"`
	Body  json.RawMessage `json:"body"`
}

type entry struct {
	record Record
	offset int64
}

// Journal is an open journal. Its methods are safe for concurrent use.
type Journal struct {
	path  string
	scope Scope

	mu       sync.Mutex // guards all below; Undo holds undoMu first
	file     *os.File
	sizeByte int64
	entries  []entry
	nextID   ID
	opened   openCounts
	broken   error

	undoMu sync.Mutex
}

// openCounts is what Open dropped; Undo reports it once.
type openCounts struct {
	void    int
	damaged int
	evicted int
}

var _ Recorder = (*Journal)(nil)

// Scope returns the scope that the journal was opened in.
func (j *Journal) Scope() Scope { return j.scope }

// Pending returns a copy of the pending records, oldest first, those of other network namespaces included.
func (j *Journal) Pending() []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Record, 0, len(j.entries))
	for _, e := range j.entries {
		out = append(out, e.record)
	}
	return out
}

// Record implements [Recorder]. Errors: [ErrFull] (bounds), [ErrClosed], [ErrBroken] (an earlier fsync or
// rollback failed, so the file can no longer be trusted to grow) and whatever the file system says, ENOSPC
// among it.
func (j *Journal) Record(changes ...Change) ([]ID, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usableLocked(); err != nil {
		return nil, err
	}
	if len(changes) == 0 {
		return nil, nil
	}
	if len(j.entries)+len(changes) > MaxPending {
		return nil, fmt.Errorf("record a change: %w: %d records pending", ErrFull, len(j.entries))
	}
	if err := j.compactIfWorthLocked(); err != nil {
		return nil, err
	}
	records, lines, offsets, err := j.encodeLocked(changes)
	if err != nil {
		return nil, err
	}
	if j.sizeByte+int64(len(lines)) > MaxFileBytes {
		return nil, fmt.Errorf("record a change: %w: %s has %d bytes", ErrFull, j.path, j.sizeByte)
	}
	if err := j.appendLocked(lines); err != nil {
		return nil, err
	}
	ids := make([]ID, 0, len(records))
	for i, r := range records {
		j.entries = append(j.entries, entry{record: r, offset: offsets[i]})
		ids = append(ids, r.ID)
	}
	j.nextID += ID(len(records))
	return ids, nil
}

func (j *Journal) encodeLocked(changes []Change) (records []Record, lines []byte, offsets []int64, err error) {
	for i, c := range changes {
		body, err := json.Marshal(c.Body)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("record a change: %s: %w", c.Kind, err)
		}
		r := Record{ID: j.nextID + ID(i), Kind: c.Kind, Scope: j.scope, Body: body}
		line, err := appendLine(nil, r)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("record a change: %s: %w", c.Kind, err)
		}
		offsets = append(offsets, j.sizeByte+int64(len(lines)))
		lines = append(lines, line...)
		records = append(records, r)
	}
	return records, lines, offsets, nil
}

// appendLocked writes and syncs whole lines. On failure the file is cut back to its old size, so that a full
// disk leaves nothing half written. After a failed fsync the kernel may have dropped the dirty pages while
// claiming success to the next caller, so the journal refuses all further records.
func (j *Journal) appendLocked(lines []byte) error {
	if _, err := j.file.WriteAt(lines, j.sizeByte); err != nil {
		if cut := j.file.Truncate(j.sizeByte); cut != nil {
			j.broken = cut
		}
		return fmt.Errorf("record a change: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		j.broken = err
		return fmt.Errorf("record a change: %w", errors.Join(err, j.file.Truncate(j.sizeByte)))
	}
	j.sizeByte += int64(len(lines))
	return nil
}

// Forget implements [Recorder]. The records are gone from memory even when the file could not be marked;
// undoing them once more after a crash is harmless.
func (j *Journal) Forget(ids ...ID) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return fmt.Errorf("forget a change: %w", ErrClosed)
	}
	drop := make(map[ID]bool, len(ids))
	for _, id := range ids {
		drop[id] = true
	}
	var errs []error
	kept := j.entries[:0]
	marked := 0
	for _, e := range j.entries {
		if !drop[e.record.ID] {
			kept = append(kept, e)
			continue
		}
		marked++
		if _, err := j.file.WriteAt([]byte{statusForgotten}, e.offset); err != nil {
			errs = append(errs, err)
		}
	}
	clear(j.entries[len(kept):])
	j.entries = kept
	if marked == 0 {
		return nil
	}
	if len(j.entries) == 0 {
		errs = append(errs, j.resetLocked())
	} else {
		errs = append(errs, j.file.Sync())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forget a change: %w", err)
	}
	return nil
}

// resetLocked cuts the file back to its header when nothing is pending.
func (j *Journal) resetLocked() error {
	if err := j.file.Truncate(int64(len(header))); err != nil {
		return err
	}
	j.sizeByte = int64(len(header))
	return j.file.Sync()
}

// Close releases the journal without undoing anything. Pending records stay in the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

func (j *Journal) usableLocked() error {
	if j.file == nil {
		return fmt.Errorf("record a change: %w", ErrClosed)
	}
	if j.broken != nil {
		return fmt.Errorf("record a change: %w: %w", ErrBroken, j.broken)
	}
	return nil
}
