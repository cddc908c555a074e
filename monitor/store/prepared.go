package store

import (
	"context"
	"database/sql"
	"sync"
)

// prepared is a querier for questions that are asked again and again: SQLite compiles each of
// them once a connection, which takes longer than to answer it. Texts must be constants.
type prepared struct {
	db    *sql.DB
	known sync.Map // *sql.Stmt by text
}

func (p *prepared) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := p.known.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := p.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if first, there := p.known.LoadOrStore(query, s); there {
		s.Close()
		return first.(*sql.Stmt), nil
	}
	return s, nil
}

// QueryContext implements querier.
func (p *prepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := p.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// QueryRowContext implements querier.
func (p *prepared) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := p.statement(ctx, query)
	if err != nil {
		return p.db.QueryRowContext(ctx, query, args...) // which says what is wrong
	}
	return s.QueryRowContext(ctx, args...)
}

func (p *prepared) close() {
	p.known.Range(func(_, s any) bool {
		s.(*sql.Stmt).Close()
		return true
	})
}
