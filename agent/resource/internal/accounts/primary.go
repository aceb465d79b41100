package accounts

// FirstOf returns an account, other than the one named, that has the group as its first one; "" if there is none.
func (db *DB) FirstOf(gid int, but string) string {
	for name, u := range db.users {
		if u.GID == gid && name != but {
			return name
		}
	}
	return ""
}
