package monitor

// Break lets whatever looks at an entry of ours fail as a broken parser does.
func (e *Engine) Break() (mend func()) {
	for _, r := range e.all() {
		whole := r.trust.Load()
		broken := *whole
		broken.authorities = nil
		r.trust.Store(&broken)
		mend = func() { r.trust.Store(whole) }
	}
	return mend
}
