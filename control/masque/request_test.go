package masque

import (
	"net/http"
	"net/url"
	"testing"
)

// RFC 9484 section 4.6 gives the form of both variables; paths are compared decoded.
func TestRFC9484Section4_6Scope(t *testing.T) {
	for path, want := range map[string]int{
		"*/*/":                       0,
		"*/*":                        0,
		"%2A/%2a/":                   0,
		"%2A/*/":                     0,
		"192.0.2.1/*/":               http.StatusForbidden,
		"192.0.2.0%2F24/17/":         http.StatusForbidden,
		"2001%3Adb8%3A%3A42/*/":      http.StatusForbidden,
		"2001%3Adb8%3A%3A%2F32/*/":   http.StatusForbidden,
		"target.example.com/132/":    http.StatusForbidden,
		"*/255/":                     http.StatusForbidden,
		"*/256/":                     http.StatusBadRequest,
		"*/-1/":                      http.StatusBadRequest,
		"*/udp/":                     http.StatusBadRequest,
		"*/0017/":                    http.StatusBadRequest,
		"192.0.2.1%2F24/*/":          http.StatusBadRequest, // host bits
		"192.0.2.0%2F33/*/":          http.StatusBadRequest,
		"fe80%3A%3A1%25eth0/*/":      http.StatusBadRequest, // zone
		"a%20b/*/":                   http.StatusBadRequest,
		"/*/":                        http.StatusBadRequest,
		"*/*/more/":                  http.StatusBadRequest,
		"*/*//":                      http.StatusBadRequest,
		"*/":                         http.StatusBadRequest,
		"":                           http.StatusBadRequest,
		"*/*/?target=192.0.2.1":      http.StatusBadRequest,
		"../../../%2e%2e/etc/passwd": http.StatusBadRequest,
		"192.0.2.0/24/*/":            http.StatusBadRequest, // slash not encoded
		"%2A%2F%2A/":                 http.StatusBadRequest,
	} {
		u, err := url.Parse("https://gateway.example" + pathPrefix + path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := checkScope(u)
		if got != want || (err == nil) != (want == 0) {
			t.Errorf("%s: %d, %v; want %d", path, got, err, want)
		}
	}
}

func TestCanonicalAuthority(t *testing.T) {
	for in, want := range map[string]string{
		"gateway.example":         "gateway.example:443",
		"Gateway.Example.":        "gateway.example:443",
		"gateway.example:443":     "gateway.example:443",
		"gateway.example:8443":    "gateway.example:8443",
		"192.0.2.1":               "192.0.2.1:443",
		"192.0.2.1:4433":          "192.0.2.1:4433",
		"2001:DB8:0:0::1":         "[2001:db8::1]:443",
		"[2001:db8::1]":           "[2001:db8::1]:443",
		"[2001:0db8::0001]:4433":  "[2001:db8::1]:4433",
		"[::ffff:192.0.2.1]:4433": "192.0.2.1:4433",
	} {
		if got := canonicalAuthority(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// FuzzCheckScope checks that no path panics and that only the unscoped one passes.
func FuzzCheckScope(f *testing.F) {
	for _, s := range []string{"*/*/", "%2A/%2A", "192.0.2.0%2F24/17/", "%", "a/b/c/d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.Parse("https://gateway.example" + pathPrefix + path)
		if err != nil {
			return
		}
		status, err := checkScope(u)
		if (err == nil) != (status == 0) || err != nil && (status < 400 || status > 499) {
			t.Fatalf("%q: %d, %v", path, status, err)
		}
		if decoded := u.Path; err == nil && decoded != Path && decoded+"/" != Path {
			t.Fatalf("%q passes", decoded)
		}
	})
}
