//go:build unix

package api

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// group is the group whose members may talk to the daemon, where it exists.
const group = "aetherd"

// draftSuffix makes the name of the directory in which a socket is created. Its name is always the same, so that the
// next start finds what a crash left there.
const draftSuffix = ".new"

// listenPrivate creates the socket inside a directory of its own that nobody else may enter and moves it into place
// when its permissions are right, so that there is no instant at which others may connect.
func listenPrivate(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	private := path + draftSuffix
	draft := filepath.Join(private, "s")
	for _, left := range []string{draft, private} {
		if err := os.Remove(left); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if err := os.Mkdir(private, 0o700); err != nil {
		return nil, err
	}
	defer os.Remove(private) //nolint:errcheck // empty, and otherwise the next start removes it
	return listenDraft(draft, path)
}

// listenDraft listens at draft and moves the socket to path.
func listenDraft(draft, path string) (net.Listener, error) {
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
		return nil // no such group: the socket stays the owner's
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	err = os.Chown(path, -1, gid)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) {
		// No such group in this user namespace, or no CAP_CHOWN (chown(2)): the socket stays the owner's.
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}
