package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

const (
	maxBodyBytes   = 64 << 10
	maxHeaderBytes = 16 << 10
	requestTimeout = 30 * time.Second
	// transferTimeout bounds how long a caller may take to send a request or to fetch an answer. It is longer than
	// requestTimeout, so that the answer to a late request still goes out.
	transferTimeout = requestTimeout + 10*time.Second
	shutdownWait    = 2 * time.Second
)

// Server serves one daemon on one unix socket. Use Listen.
type Server struct {
	listener net.Listener
	path     string
	http     *http.Server
}

// Listen opens the socket at path, which must not belong to a running daemon: the caller holds the lock on the state
// directory, so a socket that is there was left by a crash and is replaced. Anything else that is there is left alone
// and makes an error.
func Listen(path string, d Daemon, log *slog.Logger) (*Server, error) {
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("replace API socket: %w", err)
	}
	l, err := listenPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("listen on API socket %s: %w", path, err)
	}
	s := &Server{listener: l, path: path}
	s.http = &http.Server{
		Handler: http.TimeoutHandler(routes(d), requestTimeout, `{"error":"the daemon did not answer in time"}`),
		// Local callers only, and still no reason to let one hold a connection half-open for ever.
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       transferTimeout,
		WriteTimeout:      transferTimeout,
		IdleTimeout:       requestTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// removeStale removes the socket that a crashed daemon left.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is not a socket: move it away", path)
	}
	return os.Remove(path)
}

// Run serves until ctx ends, gives requests under way 2 seconds, and removes the socket.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(s.listener) }()
	select {
	case err := <-done:
		return errors.Join(fmt.Errorf("API: %w", err), s.http.Close(), s.removeSocket())
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	err := s.http.Shutdown(wait)
	if err != nil {
		err = s.http.Close()
	}
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return errors.Join(err, s.removeSocket())
}

// Close ends a server that never ran.
func (s *Server) Close() error { return errors.Join(s.listener.Close(), s.removeSocket()) }

func (s *Server) removeSocket() error {
	if err := os.Remove(s.path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func routes(d Daemon) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.Status(), nil) })
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, struct{}{}, nil)
		d.Down()
	})
	mux.HandleFunc("POST /v1/invites", func(w http.ResponseWriter, r *http.Request) {
		var q InviteRequest
		if !read(w, r, &q) {
			return
		}
		invite, err := d.Invite(r.Context(), q)
		answer(w, invite, err)
	})
	mux.HandleFunc("GET /v1/nodes", func(w http.ResponseWriter, r *http.Request) {
		nodes, err := d.Nodes(r.Context())
		answer(w, nodes, err)
	})
	mux.HandleFunc("POST /v1/nodes/revoke", func(w http.ResponseWriter, r *http.Request) {
		var q RevokeRequest
		if read(w, r, &q) {
			answer(w, struct{}{}, d.Revoke(r.Context(), q.Name))
		}
	})
	mux.HandleFunc("GET /v1/routes", func(w http.ResponseWriter, r *http.Request) {
		list, err := d.Routes(r.Context())
		answer(w, list, err)
	})
	mux.HandleFunc("POST /v1/routes/approve", func(w http.ResponseWriter, r *http.Request) {
		var q ApproveRequest
		if read(w, r, &q) {
			answer(w, struct{}{}, d.Approve(r.Context(), q.Node, q.Prefix))
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		write(w, http.StatusNotFound, errorBody{fmt.Sprintf(
			"the daemon does not know %s %s: it may be of another version than its caller", r.Method, r.URL.Path)})
	})
	return mux
}

type errorBody struct {
	Error string `json:"error"`
}

// read takes in the body of a request, or answers that it is none.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	err := decode(http.MaxBytesReader(w, r.Body, maxBodyBytes), into)
	if err == nil {
		return true
	}
	status := http.StatusBadRequest
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		status = http.StatusRequestEntityTooLarge
	}
	write(w, status, errorBody{"malformed request: " + err.Error()})
	return false
}

// decode takes exactly one JSON value whose fields are all known.
func decode(body io.Reader, into any) error {
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	switch _, err := decoder.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return errors.New("more than one JSON value")
}

func answer(w http.ResponseWriter, body any, err error) {
	if err != nil {
		write(w, http.StatusUnprocessableEntity, errorBody{err.Error()})
		return
	}
	write(w, http.StatusOK, body)
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller hung up: nobody is left to tell
}
