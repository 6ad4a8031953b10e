-- What goes along a conversation takes the order from an index, whatever the planner thinks that there is. Where its
-- figures are of a time with a few small conversations, reading all of one and sorting it costs as little to it as going
-- along the index; for a conversation with thousands of forks that was done anew at each of them.
ALTER FUNCTION run_at SET enable_sort = off;
ALTER FUNCTION run_end SET enable_sort = off;
ALTER FUNCTION tail SET enable_sort = off;
ALTER FUNCTION page SET enable_sort = off;
