package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"

	"modernc.org/sqlite"
)

// openSQLite is sql.Open for SQLite, with connections that keep what they have compiled: to compile
// a statement takes longer than to run most of ours.
func openSQLite(dsn string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{c}), nil
}

type connector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	conn, ok := raw.(sqliteConn)
	if !ok {
		return nil, errors.Join(errors.New("the SQLite driver's connections are not what they were"), raw.Close())
	}
	return &keeper{sqliteConn: conn, idle: map[string]sqliteStmt{}}, nil
}

// sqliteConn is all that database/sql looks for in a connection of the driver.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// keeper is a connection that keeps the statements that nobody uses just now. As every connection
// of database/sql it serves one caller at a time.
type keeper struct {
	sqliteConn
	idle map[string]sqliteStmt // by their text
}

// mostKept bounds what a connection keeps, some ten kilobytes each. The program has about as many
// texts, and more where people put filters together.
const mostKept = 256

// comesAgain reports whether a text is one that comes again: schemas and settings do not, and may be
// several statements, which the driver compiles as it goes.
func comesAgain(query string) bool {
	query = strings.TrimSpace(query)
	end := strings.IndexAny(query, " \t\n(")
	if end < 0 {
		return false
	}
	switch query[:end] {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH":
		return true
	}
	return false
}

// take returns the statement of a text, which is the caller's until it gives it back.
func (k *keeper) take(ctx context.Context, query string) (sqliteStmt, error) {
	if s, ok := k.idle[query]; ok {
		delete(k.idle, query)
		return s, nil
	}
	raw, err := k.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s, ok := raw.(sqliteStmt)
	if !ok {
		return nil, errors.Join(errors.New("the SQLite driver's statements are not what they were"), raw.Close())
	}
	return s, nil
}

// giveBack takes a statement that has been reset. One that failed is compiled anew next time.
func (k *keeper) giveBack(query string, s sqliteStmt, err error) {
	if _, twice := k.idle[query]; twice || err != nil {
		s.Close() // what is wrong with it has been said
		return
	}
	if len(k.idle) >= mostKept {
		for text, other := range k.idle {
			delete(k.idle, text)
			other.Close()
			break
		}
	}
	k.idle[query] = s
}

// ExecContext implements driver.ExecerContext.
func (k *keeper) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !comesAgain(query) {
		return k.sqliteConn.ExecContext(ctx, query, args)
	}
	s, err := k.take(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := s.ExecContext(ctx, args)
	k.giveBack(query, s, err)
	return result, err
}

// QueryContext implements driver.QueryerContext.
func (k *keeper) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !comesAgain(query) {
		return k.sqliteConn.QueryContext(ctx, query, args)
	}
	s, err := k.take(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(ctx, args)
	if err != nil {
		k.giveBack(query, s, err)
		return nil, err
	}
	return &keptRows{Rows: rows, keeper: k, query: query, stmt: s}, nil
}

// keptRows gives its statement back once it is closed. It hides the driver's types of columns, which
// nobody asks for.
type keptRows struct {
	driver.Rows
	keeper *keeper
	query  string
	stmt   sqliteStmt
}

// Close implements driver.Rows.
func (r *keptRows) Close() error {
	if r.stmt == nil {
		return nil
	}
	err := r.Rows.Close()
	r.keeper.giveBack(r.query, r.stmt, err)
	r.stmt = nil
	return err
}

// Close implements driver.Conn.
func (k *keeper) Close() error {
	for _, s := range k.idle {
		s.Close()
	}
	clear(k.idle)
	return k.sqliteConn.Close()
}

// Unwrap lets the driver's own functions find its connection.
func (k *keeper) Unwrap() driver.Conn { return k.sqliteConn }
