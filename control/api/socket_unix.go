//go:build unix

package api

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// group is the group whose members may talk to the daemon, where it exists.
const group = "aetherd"

// listenPrivate creates the socket inside a directory of its own that nobody else may enter and moves it into place when its
// permissions are right, so that there is no instant at which others may connect.
func listenPrivate(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(dir, ".s")
	if err != nil {
		return nil, err
	}
	defer os.Remove(private) //nolint:errcheck // an empty directory at worst
	draft := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: draft, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it would remove the draft's name; the server removes the real one
	err = setAccess(draft)
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(draft))
	}
	return l, nil
}

// setAccess leaves the socket to the owner, and to the group if the system has it and we may say so.
func setAccess(path string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	g, err := user.LookupGroup(group)
	if err != nil || os.Geteuid() != 0 {
		return nil //nolint:nilerr // no such group: the socket stays the owner's
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}
