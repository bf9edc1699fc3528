%%% Options: one table for validators, defaults and documentation.
%%%
%%% Names, defaults and ranges of the protocol's options are the core's; a test compares. They stand
%%% here as well because ejabberd checks its configuration before the native library is loaded.
-module(mod_dmuc_opts).

-export([type/1, defaults/0, doc/0, native/1, get/2, table/0]).

%% Name, kind, default, least, most (times in milliseconds), meaning.
-spec table() -> [{atom(), int | time, integer(), integer(), integer(), binary()}].
table() ->
    [{min_occupants, int, 2, 1, 1000,
      <<"Occupants of a domain in a room from which on a link is set up; for one, plain is as "
        "cheap.">>},
     {max_envelope_bytes, int, 262144, 4096, 10485760,
      <<"Longest envelope in bytes; a stanza of more than half of it goes plainly. The replica "
        "may ask for less.">>},
     {max_unacked_copies, int, 1000000, 1000, 100000000,
      <<"Copies (expanded) of a link that may wait for an acknowledgement or in its queue.">>},
     {max_unacked_bytes, int, 33554432, 65536, 1073741824,
      <<"Bytes of a link that may wait for an acknowledgement or in its queue.">>},
     {max_unacked_bytes_total, int, 268435456, 1048576, 68719476736,
      <<"Bytes that may wait on all links of a host; beyond it a link is given up on which "
        "more than the longest envelope waits.">>},
     {ack_every, int, 32, 1, 1000,
      <<"Envelopes after which the replica acknowledges at once.">>},
     {ack_delay, time, 2000, 0, 60000,
      <<"Longest time for which the replica waits with an acknowledgement.">>},
     {ack_timeout, time, 30000, 5000, 3600000,
      <<"Time without acknowledgement after which the primary takes a link for broken.">>},
     {probe_after, time, 10000, 1000, 3600000,
      <<"Time without acknowledgement after which the primary probes with an empty envelope, "
        "so that a dead stream is noticed by the server.">>},
     {hold_time, time, 330000, 0, 3600000,
      <<"Time for which the primary keeps what waits for a link whose stream is broken. Longer "
        "than the five minutes for which servers refuse to connect again after a failure.">>},
     {fate_timeout, time, 10000, 100, 600000,
      <<"Time for which the primary waits for the fate of the other envelopes after a refusal.">>},
     {setup_timeout, time, 30000, 1000, 300000,
      <<"Time for which the primary waits for the answer to a set-up.">>},
     {ping_interval, time, 60000, 1000, 3600000,
      <<"Idle time after which the primary probes a link with an empty envelope.">>},
     {support_yes, time, 86400000, 1000, 604800000,
      <<"Time for which a domain's yes to the disco#info question is kept.">>},
     {support_no, time, 3600000, 1000, 604800000,
      <<"Time for which a domain's no is kept.">>},
     {support_in_flight, int, 100, 1, 10000,
      <<"Disco questions in flight at once.">>},
     {support_entries, int, 100000, 10, 10000000,
      <<"Domains whose answer is remembered.">>},
     {retry_min, time, 5000, 100, 3600000,
      <<"First waiting time after a link failed; it doubles with each failure.">>},
     {retry_max, time, 3600000, 1000, 86400000,
      <<"Longest waiting time after a link failed.">>},
     {max_audience, int, 50000, 2, 1000000,
      <<"Occupants of one link.">>},
     {max_slots, int, 20000, 0, 1000000,
      <<"Stanzas that the replica of a link keeps for being replayed by number; 0 turns that "
        "off.">>},
     {max_slot_messages, int, 256, 0, 100000,
      <<"Messages among them.">>},
     {max_slot_bytes, int, 16777216, 0, 4294967296,
      <<"Bytes of the stanzas kept for one link.">>},
     {max_slot_bytes_total, int, 268435456, 0, 68719476736,
      <<"Bytes of the stanzas that a replica keeps for all its links, for replay or because "
        "their turn in a room stream has not come.">>},
     {max_slots_total, int, 1000000, 0, 1000000000,
      <<"Stanzas of which a primary remembers that replicas keep them, each once for each "
        "replica, on all links of a host; some 300 bytes each.">>},
     {max_links, int, 10000, 1, 1000000,
      <<"Links that a replica accepts in all.">>},
     {max_links_per_domain, int, 2000, 1, 1000000,
      <<"Links that a replica accepts from one domain.">>},
     {tree_domains, int, 0, 0, 100000,
      <<"Linked domains of a room from which on its casts go by a tree, until there are less than "
        "half as many, if its members may see real JIDs or its owner says so; 0: never; "
        "1: in each room, for tests.">>},
     {tree_fanout, int, 16, 1, 1000,
      <<"Domains to which a room with a tree, and each of its relays, sends the casts of a class.">>},
     {tree_children, int, 16, 0, 1000,
      <<"Domains to which the replica passes casts of a class on, for each room; 0: to none.">>},
     {tree_key_age, time, 86400000, 1000, 604800000,
      <<"Time after which a room with a tree signs its casts with another key.">>},
     {tree_key_casts, int, 1000000, 1, 1000000000,
      <<"Casts of a class after which it does.">>},
     {max_consents_per_session, int, 500, 1, 1000000,
      <<"Consent records of one session.">>},
     {max_consents, int, 1000000, 100, 100000000,
      <<"Consent records of a replica.">>},
     {consent_expiry, time, 600000, 1000, 86400000,
      <<"Time after which a session's unanswered leave closes its consent record.">>}].

-spec type(atom()) -> econf:validator().
type(muc_hosts) ->
    econf:either(all, econf:list(econf:host(), [unique]));
type(replica) ->
    econf:bool();
type(Name) ->
    case lists:keyfind(Name, 1, table()) of
        {_, int, _, Min, Max, _} -> econf:int(Min, Max);
        {_, time, _, Min, Max, _} -> time(Min, Max)
    end.

%% A number is of seconds, as everywhere in ejabberd; "500 ms" is possible too.
-spec time(integer(), integer()) -> econf:validator().
time(Min, Max) ->
    Range = fun(Ms) when Ms >= Min, Ms =< Max ->
                    Ms;
               (Ms) ->
                    econf:fail({invalid_syntax,
                                io_lib:format("Expected a time from ~B ms to ~B ms, got: ~B ms",
                                              [Min, Max, Ms])})
            end,
    Timeout = econf:either(econf:timeout(second), econf:timeout(millisecond)),
    Value = case Min of
                0 -> econf:either(econf:int(0, 0), Timeout);
                _ -> Timeout
            end,
    econf:and_then(Value, Range).

-spec defaults() -> [{atom(), term()}].
defaults() ->
    [{muc_hosts, all}, {replica, true}
     | [{Name, Default} || {Name, _, Default, _, _, _} <- table()]].

%% What the core is told.
-spec native(gen_mod:opts()) -> [{binary(), non_neg_integer()}].
native(Opts) ->
    [{atom_to_binary(Name, utf8), gen_mod:get_opt(Name, Opts)} || {Name, _, _, _, _, _} <- table()].

-spec get(binary(), atom()) -> term().
get(Host, Name) ->
    gen_mod:get_module_opt(Host, mod_dmuc, Name).

-spec doc() -> [{atom(), map()}].
doc() ->
    [{muc_hosts,
      #{value => "all | [Host, ...]",
        desc => <<"The MUC services of this virtual host whose rooms use links. The default is "
                  "'all'; an empty list switches the primary off.">>}},
     {replica,
      #{value => "true | false",
        desc => <<"Whether this virtual host accepts links for its users. The default is "
                  "'true'.">>}}
     | [{Name, #{value => value(Kind, Min, Max),
                 desc => iolist_to_binary([Meaning, " The default is '", default(Kind, Default),
                                           "'."])}}
        || {Name, Kind, Default, Min, Max, Meaning} <- table()]].

-spec value(int | time, integer(), integer()) -> string().
value(int, Min, Max) -> lists:flatten(io_lib:format("~B..~B", [Min, Max]));
value(time, Min, Max) -> lists:flatten(io_lib:format("timeout(), ~B..~B ms", [Min, Max])).

-spec default(int | time, integer()) -> iolist().
default(int, Default) -> integer_to_list(Default);
default(time, Default) -> io_lib:format("~B ms", [Default]).
