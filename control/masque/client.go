package masque

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	// maxRefusalBytes is how much of a refusal's content is kept.
	maxRefusalBytes = 4 << 10
	// maxInformational is how many 1xx answers are skipped.
	maxInformational = 5
)

// Request says whom a client asks and with what.
type Request struct {
	// Authority is the gateway's host and port, as the :authority field names it.
	Authority string
	// Header is added to the request, for example Authorization. May be nil.
	Header http.Header
}

// NewHTTP3Conn makes the HTTP/3 layer of a client's QUIC connection, with this
// package's limits. It may be called once for a connection.
func NewHTTP3Conn(conn *quic.Conn) *http3.ClientConn {
	t := &http3.Transport{
		EnableDatagrams:        true,
		MaxResponseHeaderBytes: MaxHeaderBytes,
		DisableCompression:     true,
	}
	return t.NewClientConn(conn)
}

// Dial asks for a session over a connection that has none yet: [NewHTTP3Conn] and
// [DialHTTP3].
func Dial(ctx context.Context, conn *quic.Conn, req Request) (*Session, *http.Response, error) {
	return DialHTTP3(ctx, NewHTTP3Conn(conn), req)
}

// DialHTTP3 asks for a session over an HTTP/3 connection. It waits for the peer's
// SETTINGS, sends the request for [Path] and waits for the answer. The session has
// an ADDRESS_REQUEST for one address of each family queued, as RFC 9484 section
// 4.7.1 requires of an endpoint that expects an assignment.
//
// It returns *StatusError, with the response, for an answer other than 2xx;
// ErrNoExtendedConnect or ErrNoDatagrams for a peer that lacks them; the cause of
// ctx's end; or the transport's error. The caller keeps the connection, which has to
// allow datagrams, and closes it.
func DialHTTP3(ctx context.Context, conn *http3.ClientConn, req Request) (*Session, *http.Response, error) {
	if err := waitForSettings(ctx, conn); err != nil {
		return nil, nil, fmt.Errorf("connect-ip request: %w", err)
	}
	str, err := conn.OpenRequestStream(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("connect-ip request: open stream: %w", err)
	}
	rsp, err := roundTrip(ctx, str, newRequest(ctx, req))
	if err != nil {
		str.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		str.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		return nil, rsp, fmt.Errorf("connect-ip request: %w", err)
	}
	s := NewSession(str)
	if _, err := s.RequestAddresses(anyAddress()); err != nil {
		s.Abort(http3.ErrCodeInternalError, err)
		return nil, rsp, fmt.Errorf("connect-ip request: %w", err)
	}
	return s, rsp, nil
}

// waitForSettings waits for the peer's SETTINGS and checks what RFC 9220 section 3
// and RFC 9297 section 2.1.1 want before a request.
func waitForSettings(ctx context.Context, conn *http3.ClientConn) error {
	select {
	case <-conn.ReceivedSettings():
	case <-conn.Context().Done():
		return fmt.Errorf("wait for settings: %w", context.Cause(conn.Context()))
	case <-ctx.Done():
		return fmt.Errorf("wait for settings: %w", context.Cause(ctx))
	}
	settings := conn.Settings()
	if !settings.EnableExtendedConnect {
		return ErrNoExtendedConnect
	}
	if !settings.EnableDatagrams {
		return ErrNoDatagrams
	}
	return nil
}

// newRequest builds the request of RFC 9484 section 4.4.
func newRequest(ctx context.Context, req Request) *http.Request {
	header := req.Header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	header.Set(capsuleProtocolHeader, capsuleProtocolValue)
	r := &http.Request{
		Method: http.MethodConnect,
		Proto:  Protocol,
		Host:   req.Authority,
		Header: header,
		// RawPath keeps the asterisks from being percent-encoded.
		URL: &url.URL{Scheme: "https", Host: req.Authority, Path: Path, RawPath: Path},
	}
	return r.WithContext(ctx)
}

// roundTrip sends the request and returns a 2xx answer or an error. The end of ctx
// resets the stream, which is the only way to end its blocking calls.
func roundTrip(ctx context.Context, str *http3.RequestStream, r *http.Request) (*http.Response, error) {
	stop := context.AfterFunc(ctx, func() {
		str.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		str.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	})
	rsp, err := readAnswer(str, r)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return rsp, err
}

func readAnswer(str *http3.RequestStream, r *http.Request) (*http.Response, error) {
	if err := str.SendRequestHeader(r); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	for range maxInformational + 1 {
		rsp, err := str.ReadResponse()
		switch {
		case err != nil:
			return nil, fmt.Errorf("read response: %w", err)
		case rsp.StatusCode >= 200 && rsp.StatusCode <= 299:
			return rsp, nil
		case rsp.StatusCode >= 200:
			return rsp, statusError(rsp)
		}
	}
	return nil, errors.New("too many informational responses")
}

// statusError reads what the server says about its refusal. A content cut short is as
// good as what there is of it.
func statusError(rsp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(rsp.Body, maxRefusalBytes))
	return &StatusError{StatusCode: rsp.StatusCode, Header: rsp.Header, Body: body}
}
