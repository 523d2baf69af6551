package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

// The exchange by which an invitee becomes a node is one POST: the invite's secret as bearer token (RFC 6750) and an
// admit.JoinRequest signed over this TLS session, answered by an admit.Admission or by a refusal whose content is one
// line for the user.
const (
	joinPath = "/.well-known/aethertunnel/join"
	// joinExporter labels the bytes that bind a request to its TLS session (RFC 8446 section 7.5).
	joinExporter = "EXPORTER-aethertunnel-join-v1"
	// joinLimit bounds the whole exchange, reaching the gateway included.
	joinLimit = 20 * time.Second
	// maxRefusalBytes bounds the line that explains a refusal.
	maxRefusalBytes = 1 << 10
)

// serveJoin admits whoever brings a good invite. To anybody else the path does not exist.
func (g *Gateway) serveJoin(w http.ResponseWriter, r *http.Request) {
	bearer, ok := bearerToken(r)
	if r.Method != http.MethodPost || r.TLS == nil || !ok {
		http.NotFound(w, r)
		return
	}
	admission, err := g.redeem(w, r, bearer)
	switch {
	case errors.Is(err, admit.ErrInviteUnknown), errors.Is(err, admit.ErrRequest), errors.Is(err, token.ErrNotBearer):
		http.NotFound(w, r)
	case err != nil:
		// Who holds the secret of a real invite may know why it is not taken.
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, err.Error()) // a client that hung up needs no answer
	default:
		_, _ = w.Write(admission) // the invitee asks again when the answer is lost
	}
}

func (g *Gateway) redeem(w http.ResponseWriter, r *http.Request, bearer string) ([]byte, error) {
	secret, err := token.ParseBearer(bearer)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, admit.MaxRequest))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admit.ErrRequest, err)
	}
	request, err := admit.ParseJoinRequest(body)
	if err != nil {
		return nil, err
	}
	binding, err := r.TLS.ExportKeyingMaterial(joinExporter, nil, admit.MinBinding)
	if err != nil {
		return nil, fmt.Errorf("bind join request: %w", err)
	}
	admission, err := g.cfg.Authority.Redeem(request, admit.Proof{Secret: secret, Binding: binding})
	if err != nil {
		if g.refusals.Allow() {
			g.observe(Event{Kind: EventNotice, Text: "join refused", Err: err})
		}
		return nil, err
	}
	g.changed()
	g.observe(Event{Kind: EventJoined, Node: admission.Name})
	return admission.Encode()
}

// bearerToken returns the token of an Authorization header. The scheme may be in any case (RFC 9110 section 11.1).
func bearerToken(r *http.Request) (string, bool) {
	scheme, bearer, found := strings.Cut(r.Header.Get("Authorization"), " ")
	return bearer, found && strings.EqualFold(scheme, "Bearer")
}

// JoinConfig is what an invitee needs to join.
type JoinConfig struct {
	Key         *identity.Private
	Invite      token.Invite
	Name        string         // what the node would like to be called
	Offer       []netip.Prefix // LANs behind it
	KeyExchange masque.KeyExchange
	Transport   Transport
	Resolver    Resolver
	Now         func() time.Time
}

// Join redeems an invite. It trusts whoever proves the gateway id in the invite, whatever address answers. Errors are
// one line for the user and match those of admit.Redeem where the gateway gave a reason.
func Join(ctx context.Context, c JoinConfig) (store.Membership, error) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	addresses, err := resolve(ctx, c.Resolver, c.Invite.Addresses)
	if err != nil {
		return store.Membership{}, err
	}
	tlsConfig := masque.TLSConfig(&tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks the keys against the invite's gateway id
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := admit.VerifyInvited(s.PeerCertificates, c.Invite.Gateway, c.Now())
			return err
		},
	}, c.KeyExchange)
	won, err := race(ctx, addresses, func(ctx context.Context, a netip.AddrPort) (reached, error) {
		conn, size, err := masque.DialPacketSizes(ctx, func(ctx context.Context, size uint16) (*quic.Conn, error) {
			return c.Transport.Dial(ctx, net.UDPAddrFromAddrPort(a), tlsConfig, masque.QUICConfig(size))
		})
		if err != nil {
			return reached{}, dialError(a, err)
		}
		return reached{conn, size, a}, nil
	}, reached.discard)
	if err != nil {
		if final := certificateError(err); final != nil {
			return store.Membership{}, final
		}
		return store.Membership{}, fmt.Errorf(
			"no answer from the gateway at %v: is it running, and does UDP reach it? (%w)", c.Invite.Addresses, err)
	}
	defer won.discard()
	return c.exchange(ctx, won)
}

// exchange sends the request over a connection whose other end is the invite's gateway.
func (c JoinConfig) exchange(ctx context.Context, to reached) (store.Membership, error) {
	state := to.conn.ConnectionState().TLS
	if len(state.PeerCertificates) == 0 {
		return store.Membership{}, errNoHandshake
	}
	gateway, err := admit.VerifyInvited(state.PeerCertificates, c.Invite.Gateway, c.Now())
	if err != nil {
		return store.Membership{}, err
	}
	binding, err := state.ExportKeyingMaterial(joinExporter, nil, admit.MinBinding)
	if err != nil {
		return store.Membership{}, fmt.Errorf("bind join request: %w", err)
	}
	proof := admit.Proof{Secret: c.Invite.Secret, Binding: binding}
	request, err := admit.NewJoinRequest(c.Key, c.Name, c.Offer, proof)
	if err != nil {
		return store.Membership{}, err
	}
	encoded, err := request.MarshalBinary()
	if err != nil {
		return store.Membership{}, err
	}
	answer, err := c.post(ctx, masque.NewHTTP3Conn(to.conn), to.address.String(), encoded)
	if err != nil {
		return store.Membership{}, err
	}
	admission, err := admit.ParseAdmission(answer)
	if err != nil {
		return store.Membership{}, err
	}
	return admission.Membership(admit.Joined{
		Gateway: gateway, GatewayAddresses: c.Invite.Addresses, Own: c.Key.Public(), Now: c.Now(),
	})
}

func (c JoinConfig) post(ctx context.Context, conn *http3.ClientConn, authority string, body []byte) ([]byte, error) {
	bearer, err := token.Bearer(c.Invite.Secret)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+authority+joinPath, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	response, err := conn.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // a body that was read to its end
	switch response.StatusCode {
	case http.StatusOK:
		return io.ReadAll(io.LimitReader(response.Body, admit.MaxAdmission))
	case http.StatusForbidden:
		line, err := io.ReadAll(io.LimitReader(response.Body, maxRefusalBytes))
		if err != nil {
			return nil, fmt.Errorf("join refused: %w", err)
		}
		return nil, fmt.Errorf("join refused by the gateway: %s", printable(line))
	case http.StatusNotFound:
		return nil, fmt.Errorf("join refused by the gateway: %w", admit.ErrInviteUnknown)
	}
	return nil, fmt.Errorf("join: the gateway answered %s", response.Status)
}

// printable makes a peer's line safe for a terminal.
func printable(line []byte) string {
	return string(bytes.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // control characters above ASCII and changes of direction among them
			return ' '
		}
		return r
	}, bytes.ToValidUTF8(line, []byte("?"))))
}
