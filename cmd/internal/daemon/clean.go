package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// Cleaned is what Clean did.
type Cleaned struct {
	Undone int      // changes taken back
	Kept   []string // what somebody else has changed since, now or when the daemon ended, one line each
}

// Clean undoes what a daemon of this state directory has left behind when it was killed. While one runs it fails with
// ErrAlreadyRunning.
func Clean(dir string, log *slog.Logger) (cleaned Cleaned, err error) {
	if _, err := os.Stat(filepath.Join(dir, "state.db")); errors.Is(err, os.ErrNotExist) {
		return Cleaned{}, fmt.Errorf("no aetherd has run with state %s: nothing to undo", dir)
	}
	if err := checkStateDir(dir); err != nil {
		return Cleaned{}, err
	}
	st, err := openState(dir)
	if err != nil {
		return Cleaned{}, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	j, err := journal.Open(dir)
	if err != nil {
		return Cleaned{}, fmt.Errorf("open undo journal: %w", err)
	}
	h := &host{journal: j, log: log}
	report, err := h.undo()
	earlier, leftErr := takeLeft(dir)
	err = errors.Join(err, leftErr)
	cleaned.Kept = earlier
	for _, l := range report.Left {
		cleaned.Kept = append(cleaned.Kept, l.String())
	}
	if n := len(report.Elsewhere); n > 0 {
		cleaned.Kept = append(cleaned.Kept, fmt.Sprintf(
			"%d changes were made in another network namespace: if it still exists, run `aetherd down` inside it", n))
	}
	if report.Damaged > 0 {
		cleaned.Kept = append(cleaned.Kept, fmt.Sprintf("%d records of changes could not be read and are lost", report.Damaged))
	}
	cleaned.Undone = report.Undone
	// We hold the state, so nobody listens on the socket.
	if removeErr := os.Remove(api.SocketPath(dir)); !errors.Is(removeErr, os.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return cleaned, errors.Join(err, j.Close())
}
