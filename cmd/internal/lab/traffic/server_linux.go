package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxConnections bounds the connections a server has at a time; more are closed at once.
	maxConnections = 256
	requestTimeout = 10 * time.Second
)

// A Server is the passive end of every measurement: a TCP listener and a UDP socket at the same address
// and port.
type Server struct {
	address netip.AddrPort
	tcp     *net.TCPListener
	udp     *net.UDPConn
	cancel  context.CancelFunc
	ended   sync.WaitGroup

	mu       sync.Mutex
	open     int                  // connections
	sessions map[uint32]*sequence // of paced packets
	last     uint32               // session given out
	errs     []error              // what went wrong first, for Close
}

// maxServerErrors bounds the errors kept for [Server.Close].
const maxServerErrors = 16

// Serve starts a server on a host at an IP address and port; port 0 chooses a free one. It serves until
// ctx is done or [Server.Close], which must be called in either case.
func Serve(ctx context.Context, host Host, address string) (*Server, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("serve traffic: %w", err)
	}
	s := &Server{sessions: make(map[uint32]*sequence)}
	if err := host.Do(func() error { return s.listen(at) }); err != nil {
		return nil, fmt.Errorf("serve traffic: %w", err)
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.ended.Go(func() { s.acceptAll(ctx) })
	s.ended.Go(func() { s.fail(s.servePackets()) })
	s.ended.Go(func() {
		<-ctx.Done()
		s.fail(errors.Join(s.tcp.Close(), s.udp.Close()))
	})
	return s, nil
}

// listen opens both sockets. A port that is free for TCP may be taken for UDP; then another one is
// tried.
func (s *Server) listen(at netip.AddrPort) error {
	const tries = 16
	var err error
	for range tries {
		if err = s.listenOnce(at); err == nil || at.Port() != 0 {
			return err
		}
	}
	return err
}

func (s *Server) listenOnce(at netip.AddrPort) error {
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	tcp, err := as[*net.TCPListener](config.Listen(context.Background(), "tcp", at.String()))
	if err != nil {
		return err
	}
	bound, err := netip.ParseAddrPort(tcp.Addr().String())
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	config = net.ListenConfig{Control: control(enlargeBuffers)}
	udp, err := as[*net.UDPConn](config.ListenPacket(context.Background(), "udp", bound.String()))
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	s.address, s.tcp, s.udp = bound, tcp, udp
	return nil
}

// Addr returns the address and port of the server, for TCP and UDP.
func (s *Server) Addr() netip.AddrPort { return s.address }

// Close ends the server, waits until it has ended, and returns what went wrong meanwhile, other than
// clients that went away.
func (s *Server) Close() error {
	s.cancel()
	s.ended.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.errs...); err != nil {
		return fmt.Errorf("traffic server %v: %w", s.address, err)
	}
	return nil
}

// fail keeps an error for Close, unless it is none or comes from closing.
func (s *Server) fail(err error) {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) < maxServerErrors {
		s.errs = append(s.errs, err)
	}
}

func (s *Server) acceptAll(ctx context.Context) {
	for {
		conn, err := s.tcp.AcceptTCP()
		if err != nil {
			s.fail(err)
			return
		}
		if !s.enter() {
			s.fail(fmt.Errorf("more than %d connections at a time", maxConnections))
			s.fail(conn.Close())
			continue
		}
		s.ended.Go(func() {
			defer s.leave()
			g := newGuard(ctx, conn, 0)
			err := s.serveConnection(ctx, conn)
			if ctx.Err() != nil {
				err = nil // the connection was closed under it
			}
			s.fail(g.end(err))
		})
	}
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == maxConnections {
		return false
	}
	s.open++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
}

// serveConnection does what one request asks. A connection that breaks is the client's to report.
func (s *Server) serveConnection(ctx context.Context, conn *net.TCPConn) error {
	if err := conn.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	buffer := make([]byte, requestBytes)
	if _, err := io.ReadFull(conn, buffer); err != nil {
		return unlessGone(err)
	}
	r, err := parseRequest(buffer)
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	switch r.kind {
	case kindUpload:
		return s.serveUpload(conn, r)
	case kindDownload:
		return s.serveDownload(conn, r)
	case kindEcho:
		return s.serveEcho(conn)
	case kindPaced:
		return s.servePaced(ctx, conn, r)
	}
	return nil
}

func (s *Server) serveUpload(conn *net.TCPConn, r request) error {
	m, err := receive(conn, r.interval)
	if err == nil {
		_, err = conn.Write(m.encode())
	}
	return unlessGone(err)
}

func (s *Server) serveDownload(conn *net.TCPConn, r request) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if err := onDescriptor(raw, func(fd int) error { return setCongestion(fd, r.congestion) }); err != nil {
		return err
	}
	return unlessGone(sendFor(conn, r.duration))
}

func (s *Server) serveEcho(conn *net.TCPConn) error {
	buffer := make([]byte, maxMessageBytes)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			if _, err := conn.Write(buffer[:n]); err != nil {
				return unlessGone(err)
			}
		}
		if err != nil {
			return unlessGone(err)
		}
	}
}

// unlessGone leaves out errors which say that the client has gone, its path has died or the server is
// being closed.
func unlessGone(err error) error {
	var network net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) {
		return nil
	}
	return err
}
