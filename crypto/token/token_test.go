package token

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

func fixedInvite() Invite {
	invite := Invite{
		Secret: secretOf([16]byte{
			0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac,
			0xad, 0xae, 0xaf,
		}),
		Addresses: []string{"gw.example.net:443", "192.0.2.7:443", "[2001:db8::7]:4443"},
	}
	for i := range invite.Gateway {
		invite.Gateway[i] = byte(i)
	}
	return invite
}

// The line is a promise to invites on paper: this one must read the same for ever. It was computed by a few
// lines of Python from the package's documentation.
const fixedLine = "aether://gw.example.net:443,192.0.2.7:443,[2001:db8::7]:4443/" +
	"AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4foKGio6SlpqeoqaqrrK2ur4TRWR4"

func mustEncode(t testing.TB, invite Invite) string {
	t.Helper()
	line, err := invite.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func sameInvite(a, b Invite) bool {
	return a.Gateway == b.Gateway && a.Secret.Equal(b.Secret) && slices.Equal(a.Addresses, b.Addresses)
}

func TestInviteVector(t *testing.T) {
	t.Parallel()
	if line := mustEncode(t, fixedInvite()); line != fixedLine {
		t.Errorf("line is %s", line)
	}
	invite, err := Parse(fixedLine)
	if err != nil || !sameInvite(invite, fixedInvite()) {
		t.Errorf("Parse: %v, %v", invite, err)
	}
}

func TestInviteSurroundings(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		" " + fixedLine + "\r\n", "'" + fixedLine + "'", `"` + fixedLine + `"` + "\n", "`" + fixedLine + "`",
		"“" + fixedLine + "”",
		" ' \" " + fixedLine + " \" ' ", "AETHER://GW.EXAMPLE.net:443" +
			strings.TrimPrefix(fixedLine, "aether://gw.example.net:443"),
	} {
		if invite, err := Parse(text); err != nil || !sameInvite(invite, fixedInvite()) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Any one character replaced, left out, doubled or swapped with the next is recognised, or means the same.
func TestInviteMistyped(t *testing.T) {
	t.Parallel()
	var lines []string
	for at := range len(fixedLine) {
		for _, c := range []byte("aAbB0o1lIO-_.,:/[]% x\n") {
			lines = append(lines, fixedLine[:at]+string(c)+fixedLine[at+1:])
		}
		lines = append(lines, fixedLine[:at]+fixedLine[at+1:], fixedLine[:at]+fixedLine[at:at+1]+fixedLine[at:],
			fixedLine[:at])
		if at+1 < len(fixedLine) {
			lines = append(lines, fixedLine[:at]+fixedLine[at+1:at+2]+fixedLine[at:at+1]+fixedLine[at+2:])
		}
	}
	for _, line := range lines {
		invite, err := Parse(line)
		switch {
		case err == nil:
			if !sameInvite(invite, fixedInvite()) {
				t.Errorf("%q is taken for another invite", line)
			}
		case strings.HasPrefix(line, Scheme) && !errors.Is(err, ErrMistyped),
			!strings.HasPrefix(line, Scheme) && !errors.Is(err, ErrNotInvite) && !errors.Is(err, ErrMistyped):
			t.Errorf("%q: %v", line, err)
		}
	}
}

// The code has two bits to spare at its end; there is one text per invite all the same.
func TestInviteSpareBits(t *testing.T) {
	t.Parallel()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(fixedLine) - 1
	for _, c := range alphabet {
		line := fixedLine[:last] + string(c)
		if _, err := Parse(line); line != fixedLine && !errors.Is(err, ErrMistyped) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestInviteErrors(t *testing.T) {
	t.Parallel()
	seal := func(list string, body []byte) string {
		return Scheme + list + "/" + base64.RawURLEncoding.EncodeToString(append(body, check(list, body)...))
	}
	body := append([]byte{1}, make([]byte, inviteSize-1-checkSize)...)
	future := append([]byte{2}, make([]byte, 90)...)
	cases := []struct {
		text string
		want error
	}{
		{"", ErrNotInvite},
		{"hello", ErrNotInvite},
		{"https://gw.example.net/", ErrNotInvite},
		{"aether://", ErrMistyped},
		{"aether:///AQ", ErrMistyped},
		{"aether://gw:1/", ErrMistyped},
		{"aether://gw:1/AQ", ErrMistyped},
		{"aether://gw:1/AAAAA", ErrMistyped},
		{seal("gw:1", future), ErrVersion},
		{seal("gw:1", append([]byte{0}, body[1:]...)), ErrVersion},
		{seal("gw:1", append(body, 0)), ErrMistyped},
		{seal("gw", body), ErrAddress},
		{seal("gw:0", body), ErrAddress},
		{seal("gw:1,", body), ErrAddress},
		{seal("gw:1"+strings.Repeat(",gw:1", MaxAddresses), body), ErrAddress},
		{fixedLine + strings.Repeat("A", MaxInvite), ErrTooLong},
		{strings.Repeat(" ", 10*MaxInvite) + fixedLine, ErrTooLong},
	}
	for _, c := range cases {
		if _, err := Parse(c.text); !errors.Is(err, c.want) {
			t.Errorf("%.80q: %v instead of %v", c.text, err, c.want)
		}
	}
	invite := fixedInvite()
	if invite.Addresses = nil; !errors.Is(second(invite.Encode()), ErrAddress) {
		t.Error("an invite without addresses")
	}
	for i := range 5 {
		invite.Addresses = append(invite.Addresses, strings.Repeat(fmt.Sprintf("%dx.", i), 80)+"example:443")
	}
	if !errors.Is(second(invite.Encode()), ErrTooLong) {
		t.Error("an invite without an end")
	}
	if _, err := (Invite{Addresses: []string{"gw:1"}}).Encode(); !errors.Is(err, ErrNoSecret) {
		t.Error("an invite without a secret")
	}
}

func second[T any](_ T, err error) error { return err }

func TestInviteCanonicalAddresses(t *testing.T) {
	t.Parallel()
	invite := fixedInvite()
	invite.Addresses = []string{
		"GW.Example.Net:443", "gw.example.net:443", "[2001:DB8:0::7]:443",
		"[::ffff:192.0.2.1]:1",
	}
	parsed, err := Parse(mustEncode(t, invite))
	want := []string{"gw.example.net:443", "[2001:db8::7]:443", "192.0.2.1:1"}
	if err != nil || !reflect.DeepEqual(parsed.Addresses, want) {
		t.Errorf("%v, %v", parsed.Addresses, err)
	}
}

func TestParseAddress(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"gw:1": "gw:1", "xn--bcher-kva.example:65535": "xn--bcher-kva.example:65535",
		"1and1.example:443": "1and1.example:443",
		"192.0.2.1:443":     "192.0.2.1:443", "[2001:db8::1]:443": "[2001:db8::1]:443", "A.B:8": "a.b:8",
	}
	for text, want := range good {
		if got, err := ParseAddress(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", ":", ":443", "gw", "gw:", "gw:0", "gw:00443", "gw:+443", "gw:-1", "gw:65536", "gw:443 ", " gw:443",
		"g w:443",
		"2001:db8::1:443", "[2001:db8::1]", "[2001:db8::1", "2001:db8::1]:443", "[gw]:443", "[192.0.2.1]:443",
		"[fe80::1%eth0]:443",
		"0.0.0.0:443", "[::]:443", "224.0.0.1:443", "[ff02::1]:443", "255.255.255.255:443", "1.2.3:443",
		"1.2.3.4.5:443",
		"0x7f.0x1:443", "-gw:443", "gw-:443", "gw..example:443", ".gw:443", "gw.:443", "g_w:443",
		"bücher.example:443",
		strings.Repeat("a", 64) + ":443", strings.Repeat("a.", 127) + "a:443", "gw/x:443", "gw,x:443", "gw\x00:443",
	} {
		if got, err := ParseAddress(text); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestBearer(t *testing.T) {
	t.Parallel()
	secret, err := NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Bearer(secret)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ParseBearer(text); err != nil || !back.Equal(secret) {
		t.Fatalf("%v", err)
	}
	for at := range len(text) {
		for _, bad := range []string{text[:at] + "~" + text[at+1:], text[:at], text[:at] + text[at+1:], text[:at] +
			"A" + text[at:]} {
			if _, err := ParseBearer(bad); !errors.Is(err, ErrNotBearer) {
				t.Errorf("%d: %v", at, err)
			}
		}
	}
	if _, err := Bearer(Secret{}); !errors.Is(err, ErrNoSecret) {
		t.Errorf("token of no secret: %v", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	invite := fixedInvite()
	var out bytes.Buffer
	type holder struct {
		Invite Invite
		Secret Secret
		hidden Secret
		pair   *Invite
	}
	held := holder{invite, invite.Secret, invite.Secret, &invite}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", []any{invite, &invite, invite.Secret, &invite.Secret, held, &held})
	}
	out.WriteString(invite.String() + invite.GoString() + invite.Secret.String() + invite.Secret.GoString())
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("m", "invite", invite, "secret", invite.Secret, "held", held)
	}
	for _, value := range []any{held, invite, invite.Secret, &invite.Secret} {
		if encoded, err := json.Marshal(value); err == nil {
			t.Errorf("JSON of a secret: %s", encoded)
		}
	}
	raw := invite.Secret.box.raw[:4]
	for _, form := range []string{
		string(raw), hex.EncodeToString(raw), "A0A1A2", "160 161", "160, 161", "160,161", "oKGi", "0xa0, 0xa1",
		fixedLine[100:],
	} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret leaks as %q", form)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed")
	}
}

func TestSecret(t *testing.T) {
	t.Parallel()
	a, b := fixedInvite().Secret, fixedInvite().Secret
	if !a.Equal(b) || a.Hash() != b.Hash() || a.Hash() == [32]byte{} || a.IsZero() {
		t.Error("equal secrets differ")
	}
	if (Secret{}).Equal(Secret{}) || a.Equal(Secret{}) {
		t.Error("no secret equals something")
	}
	if a.Hash() != identity.LabelInviteSecret.Sum(a.box.raw[:]) {
		t.Error("hash is not under its label")
	}
	if b.Wipe(); *b.box.raw != [SecretSize]byte{} || a.Equal(b) {
		t.Error("the secret is still there")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fixedLine)
	f.Add("'" + strings.ToUpper(fixedLine) + "' ")
	f.Add("aether://[::1]:1,a:2/AQ")
	f.Add("aether:///")
	f.Fuzz(func(t *testing.T, text string) {
		invite, err := Parse(text)
		if err != nil {
			return
		}
		back, err := Parse(mustEncode(t, invite))
		if err != nil || !sameInvite(back, invite) {
			t.Fatalf("%q comes back as %v, %v", text, back, err)
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{
		"gw:443", "[2001:db8::1]:1", "1.2.3.4:5", "[::ffff:1.2.3.4]:5",
		"a.b-c.d:65535", "]:1", "[:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		canonical, err := ParseAddress(text)
		if err != nil {
			return
		}
		if again, err := ParseAddress(canonical); err != nil || again != canonical {
			t.Fatalf("%q, then %q, then %q, %v", text, canonical, again, err)
		}
	})
}

func FuzzParseBearer(f *testing.F) {
	f.Add("aether-AaChoqOkpaanqKmqq6ytrq8AAAAA")
	f.Add("aether-")
	f.Fuzz(func(t *testing.T, text string) {
		secret, err := ParseBearer(text)
		if err != nil {
			return
		}
		if back, err := Bearer(secret); err != nil || back != text {
			t.Fatalf("%q comes back as another, %v", text, err)
		}
	})
}
