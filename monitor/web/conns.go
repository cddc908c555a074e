package web

import (
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// maxConnections bounds those who are served at once, maxOfNetwork those of them that come
	// from one network: behind a proxy that is everybody.
	maxConnections = 1024
	maxOfNetwork   = 512
	// idleFor is how long a connection may wait for its next request; less where room is short.
	idleFor = time.Minute
)

// conns makes room among the connections of a server: those that wait for nothing but a next
// request go first, the one that has waited longest before the others.
type conns struct {
	most, ofNetwork int

	mu   sync.Mutex
	all  map[net.Conn]*connection
	from map[string]int // how many there are, by network
}

type connection struct {
	network string
	idle    time.Time // since when; zero: it is at work
}

// Bounded bounds who is served at once by a server: by what its listener accepts, and by who has to go where
// room is short. Both returned are to be used. Logs are read with file descriptors too.
func Bounded(l net.Listener) (net.Listener, func(net.Conn, http.ConnState)) {
	return netutil.LimitListener(l, maxConnections), (&conns{most: maxConnections, ofNetwork: maxOfNetwork}).state
}

// state follows one connection; it is the ConnState of a server.
func (c *conns) state(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all, c.from = map[net.Conn]*connection{}, map[string]int{}
	}
	switch state {
	case http.StateNew:
		// Until it asks for something it is one that waits for nothing.
		one := &connection{network: network(conn.RemoteAddr().String()), idle: time.Now()}
		c.all[conn] = one
		c.from[one.network]++
		switch {
		case c.from[one.network] > c.ofNetwork && !c.drop(one.network):
			conn.Close() // it hears that when it is read from
		case len(c.all) > c.most*3/4:
			c.drop("")
		}
	case http.StateActive:
		if one := c.all[conn]; one != nil {
			one.idle = time.Time{}
		}
	case http.StateIdle:
		if one := c.all[conn]; one != nil {
			one.idle = time.Now()
		}
	case http.StateClosed, http.StateHijacked:
		c.forget(conn)
	}
}

// drop ends the connection of a network, or of any, that has been idle longest, and reports
// whether there was one.
func (c *conns) drop(network string) bool {
	var longest net.Conn
	for conn, one := range c.all {
		if !one.idle.IsZero() && (network == "" || one.network == network) && (longest == nil || one.idle.Before(c.all[longest].idle)) {
			longest = conn
		}
	}
	if longest == nil {
		return false
	}
	longest.Close()
	c.forget(longest)
	return true
}

func (c *conns) forget(conn net.Conn) {
	one := c.all[conn]
	if one == nil {
		return
	}
	delete(c.all, conn)
	if c.from[one.network]--; c.from[one.network] == 0 {
		delete(c.from, one.network)
	}
}
