package portmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const (
	// maxWebBytes bounds the body of any answer; descriptions of real routers stay below a tenth of it.
	maxWebBytes = 128 << 10
	// maxWebHeaderBytes bounds the header of any answer.
	maxWebHeaderBytes = 16 << 10
	// webTimeout bounds one request from dialling to the last byte.
	webTimeout = 3 * time.Second
)

// webClient speaks HTTP to routers and to nobody else: the address comes from the URL, whose host must be a
// literal address, and neither proxies nor redirects nor compression nor kept connections are used.
type webClient struct {
	client *http.Client
}

func newWebClient(local netip.Addr, control controlFunc) *webClient {
	dialer := &net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0)),
		Control:   control,
		Timeout:   webTimeout,
	}
	return &webClient{client: &http.Client{
		Timeout:       webTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				// Parsing keeps a host name from ever reaching the resolver.
				target, err := netip.ParseAddrPort(address)
				if err != nil {
					return nil, fmt.Errorf("dial router: %w", err)
				}
				return dialer.DialContext(ctx, "tcp4", target.String())
			},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxWebHeaderBytes,
			ResponseHeaderTimeout:  webTimeout,
		},
	}}
}

func (w *webClient) get(ctx context.Context, u *url.URL) ([]byte, error) {
	status, body, err := w.do(ctx, http.MethodGet, u, nil, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%w: HTTP status %d for the description", errMalformed, status)
	}
	return body, err
}

// post calls a SOAP action. Some routers compare header names byte by byte, so that SOAPACTION keeps its
// form.
func (w *webClient) post(ctx context.Context, u *url.URL, action string, body []byte) (int, []byte, error) {
	header := http.Header{
		"Content-Type": {`text/xml; charset="utf-8"`},
		"SOAPACTION":   {`"` + action + `"`},
	}
	return w.do(ctx, http.MethodPost, u, header, body)
}

func (w *webClient) do(ctx context.Context, method string, u *url.URL, header http.Header, body []byte,
) (status int, data []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("ask router: %w", err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := w.client.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("ask router: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	data, err = io.ReadAll(io.LimitReader(response.Body, maxWebBytes+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read router's answer: %w", err)
	}
	if len(data) > maxWebBytes {
		return 0, nil, fmt.Errorf("%w: more than %d bytes", errMalformed, maxWebBytes)
	}
	return response.StatusCode, data, nil
}
