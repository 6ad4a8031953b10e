-- Whether anything is stored of a conversation, be it visible or not.
return redis.call('EXISTS', c, m, i, f, s, l, a, q)
