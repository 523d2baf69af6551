package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// A WebServer is an HTTP server on a host, such as a device on a LAN has.
type WebServer struct {
	url    string
	server *http.Server
	ended  sync.WaitGroup
	err    error
}

// ServeWeb serves a handler at an IP address and port; port 0 chooses a free one. It serves until
// [WebServer.Close].
func ServeWeb(host Host, address string, handler http.Handler) (*WebServer, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("serve web pages: %w", err)
	}
	var listener net.Listener
	err = host.Do(func() error {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve web pages: %w", err)
	}
	w := &WebServer{
		url:    "http://" + listener.Addr().String() + "/",
		server: &http.Server{Handler: handler, ReadHeaderTimeout: requestTimeout},
	}
	w.ended.Go(func() { w.err = w.server.Serve(listener) })
	return w, nil
}

// URL returns the address of the root page, with a final slash.
func (w *WebServer) URL() string { return w.url }

// Close ends the server and its connections and returns what went wrong meanwhile.
func (w *WebServer) Close() error {
	err := w.server.Close()
	w.ended.Wait()
	if !errors.Is(w.err, http.ErrServerClosed) {
		err = errors.Join(err, w.err)
	}
	return err
}

// maxPageBytes bounds what Fetch keeps in memory.
const maxPageBytes = 64 << 20

// A Page is what a web server answered.
type Page struct {
	Status  int // of RFC 9110 section 15
	Body    []byte
	Elapsed time.Duration // from before the connection is made to the last byte
}

// Fetch gets a page, from a host whose addresses the URL must spell as numbers. Any status is a
// success; a body of more than 64 MiB is an error.
func Fetch(ctx context.Context, host Host, url string) (Page, error) {
	page, err := fetch(ctx, host, url)
	if err != nil {
		return Page{}, fmt.Errorf("fetch a page: %w", err)
	}
	return page, nil
}

func fetch(ctx context.Context, host Host, url string) (page Page, err error) {
	began := time.Now()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			return dial(ctx, host, "tcp", to, "")
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Page{}, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return Page{}, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxPageBytes+1))
	if err != nil {
		return Page{}, err
	}
	if len(body) > maxPageBytes {
		return Page{}, fmt.Errorf("the page is longer than %d bytes", maxPageBytes)
	}
	return Page{Status: response.StatusCode, Body: body, Elapsed: time.Since(began)}, nil
}
