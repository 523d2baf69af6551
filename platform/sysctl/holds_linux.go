package sysctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// Holds are the parameters that one daemon holds. Its methods are safe for concurrent use and act on the
// network namespace of the calling thread, which must be that of Config.Scope.
type Holds struct {
	cfg  Config
	self holder

	mu   sync.Mutex // guards held; the file lock is taken inside it
	held map[string]journal.ID
}

// New returns a Holds that holds nothing. It does not touch the host.
func New(cfg Config) (*Holds, error) {
	self, err := ownHolder(cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("hold sysctls: %w", err)
	}
	// Both are in the records, which another process with another working directory may undo.
	cfg.StateDir = self.StateDir
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("hold sysctls: %w", err)
	}
	return &Holds{cfg: cfg, self: self, held: map[string]journal.ID{}}, nil
}

// Hold sets a parameter and holds it. It is idempotent: a parameter that is held already is only set again if
// its value has changed. Errors: [ErrKey], [ErrNoKey], [*ConflictError], [ErrBusy], [ErrDir], of the journal
// and of the file system. After an error the journal describes what may have been changed.
func (h *Holds) Hold(s Setting) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := s.Validate(); err != nil {
		return fmt.Errorf("hold a sysctl: %w", err)
	}
	err := withRegistry(h.cfg.Dir, h.cfg.Scope, func(r *registry) error { return h.holdLocked(r, s) })
	if err != nil {
		return fmt.Errorf("hold sysctl %s: %w", s.Key, err)
	}
	return nil
}

func (h *Holds) holdLocked(r *registry, s Setting) error {
	current, err := Read(s.Key)
	if err != nil {
		return err
	}
	e, found, err := r.load(s.Key)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(e.Holders), h.self.sameState)
	if found && e.Set != s.Value && len(others) > 0 {
		return &ConflictError{Key: s.Key, Held: e.Set, Wanted: s.Value, StateDir: others[0].StateDir}
	}
	if len(others) >= maxHolders {
		return ErrTooMany
	}
	if _, ok := h.held[s.Key]; ok && found && e.Set == s.Value && current == s.Value &&
		slices.Contains(e.Holders, h.self) {
		return nil
	}
	next, err := e.joined(s, current, found, others)
	if err != nil {
		return err
	}
	next.Holders = append(others, h.self)
	if err := h.record(s, next.Before); err != nil {
		return err
	}
	if err := r.store(next); err != nil {
		return err
	}
	if current == s.Value {
		return nil
	}
	return write(s.Key, s.Value)
}

// joined returns the entry after one more holder. What is restored at the end is the value that somebody
// other than us chose last: the one before the first holder, or one set by hand while the parameter was held.
func (e registryEntry) joined(s Setting, current string, found bool, others []holder) (registryEntry, error) {
	next := e
	if !found || (current != e.Set && current != e.Before) || (len(others) == 0 && current != e.Set) {
		next = registryEntry{Key: s.Key, Before: current, Spreads: map[string]string{}}
		for _, key := range s.Spreads {
			value, err := Read(key)
			if errors.Is(err, ErrNoKey) {
				continue
			}
			if err != nil {
				return next, err
			}
			next.Spreads[key] = value
		}
	}
	next.Set = s.Value
	return next, nil
}

func (h *Holds) record(s Setting, before string) error {
	if _, ok := h.held[s.Key]; ok {
		return nil
	}
	body := Body{Dir: h.cfg.Dir, StateDir: h.cfg.StateDir, Key: s.Key, Set: s.Value, Before: before}
	ids, err := h.cfg.Journal.Record(journal.Change{Kind: Kind, Body: body})
	if err != nil {
		return err
	}
	h.held[s.Key] = ids[0]
	return nil
}

// Release gives up a parameter; the last holder restores it. A key that is not held is no error. The journal
// record is forgotten when the parameter has been given up.
func (h *Holds) Release(key string) ([]journal.Left, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id, ok := h.held[key]
	if !ok {
		return nil, nil
	}
	var left []journal.Left
	err := withRegistry(h.cfg.Dir, h.cfg.Scope, func(r *registry) error {
		var err error
		left, err = r.leave(key, func(o holder) bool { return o == h.self })
		return err
	})
	if err != nil {
		return left, fmt.Errorf("release sysctl %s: %w", key, err)
	}
	delete(h.held, key)
	return left, h.cfg.Journal.Forget(id)
}

// Keys returns the keys that are held, sorted.
func (h *Holds) Keys() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.held))
}

// Undoers returns the undoer of this package's records.
func Undoers() journal.Registry {
	return journal.Registry{Kind: undo}
}

func undo(record journal.Record) ([]journal.Left, error) {
	var b Body
	if err := json.Unmarshal(record.Body, &b); err != nil {
		return nil, fmt.Errorf("undo a sysctl: %w", err)
	}
	if !validKey(b.Key) {
		return nil, fmt.Errorf("undo a sysctl: %w: %q", ErrKey, b.Key)
	}
	self, err := ownHolder(b.StateDir)
	if err != nil {
		return nil, fmt.Errorf("undo sysctl %s: %w", b.Key, err)
	}
	var left []journal.Left
	err = withRegistry(b.Dir, record.Scope, func(r *registry) error {
		_, found, err := r.load(b.Key)
		if err != nil {
			return err
		}
		if !found {
			left, err = withoutEntry(b)
			return err
		}
		left, err = r.leave(b.Key, func(o holder) bool {
			return o.sameState(self) && (o == self || !o.alive())
		})
		return err
	})
	if err != nil {
		return left, fmt.Errorf("undo sysctl %s: %w", b.Key, err)
	}
	return left, nil
}

// withoutEntry handles a record without holder file: the change was never made, was taken back already, or
// somebody removed the file. In the last case other holders may exist, so the value is left.
func withoutEntry(b Body) ([]journal.Left, error) {
	current, err := Read(b.Key)
	if errors.Is(err, ErrNoKey) || (err == nil && (current != b.Set || b.Set == b.Before)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []journal.Left{{
		Thing: thing(b.Key), Set: b.Set,
		Found: fmt.Sprintf("%s (its list of holders is gone; it was %s before)", current, b.Before),
	}}, nil
}

func thing(key string) string { return "sysctl " + strings.TrimSpace(key) }
