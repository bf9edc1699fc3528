%%% What can be tested without a server: terms, XML and options, against the native library itself.
-module(mod_dmuc_tests).

-include_lib("eunit/include/eunit.hrl").
-include("xmpp.hrl").
-include("mod_dmuc.hrl").

-define(ROOM, <<"room@conference.example">>).

setup() ->
    {ok, _} = application:ensure_all_started(xmpp),
    ok = mod_dmuc_nif:check().

all_test_() ->
    {setup, fun setup/0,
     [fun options_equal_the_cores/0,
      fun defaults_are_documented/0,
      fun namespace_equals_the_cores/0,
      fun facts_of_presences/0,
      fun facts_of_raw_presences/0,
      fun facts_of_other_stanzas/0,
      fun copies_share_a_key/0,
      fun copies_share_a_digest/0,
      fun whatever_differs_shows_in_the_digest/0,
      fun encoded_stanzas_come_back/0,
      fun incoming_tells_each_operation/0,
      fun what_has_a_slot_is_packed/0,
      fun what_may_have_to_wait_is_packed/0,
      fun what_is_relayed_goes_on_as_it_came/0,
      fun foreign_children_are_no_stanzas/0,
      fun raw_children_are_parsed/0,
      fun jids_come_back_as_triples/0,
      fun strangers_pass/0,
      fun what_is_captured_crosses_at_once/0,
      fun known_stanzas_are_replayed/0,
      fun unknown_ids_are_nobodys/0,
      fun bad_terms_are_refused/0,
      fun deep_elements_are_cut/0,
      fun bad_options_are_named/0,
      fun consent_survives_a_new_handle/0,
      fun clock_is_never_negative/0]}.

%%%===================================================================
%%% Options
%%%===================================================================
options_equal_the_cores() ->
    Ours = [{atom_to_binary(Name, utf8), Default, Min, Max, Meaning}
            || {Name, _, Default, Min, Max, Meaning} <- mod_dmuc_opts:table()],
    Cores = mod_dmuc_nif:options(),
    ?assertEqual([], Cores -- Ours),
    ?assertEqual([], Ours -- Cores).

defaults_are_documented() ->
    #{opts := Docs} = mod_dmuc:mod_doc(),
    ?assertEqual(lists:sort([Name || {Name, _} <- mod_dmuc:mod_options(<<"example">>)]),
                 lists:sort([Name || {Name, _} <- Docs])).

namespace_equals_the_cores() ->
    ?assertEqual(mod_dmuc_nif:namespace(), ?NS_DMUC).

bad_options_are_named() ->
    {error, Text} = mod_dmuc_nif:shared_new([{<<"ack_every">>, 0}]),
    ?assertMatch({_, _}, binary:match(Text, <<"ack_every">>)).

%%%===================================================================
%%% Facts
%%%===================================================================
occupant(Type, Els) ->
    #presence{type = Type, from = jid:make(<<"room">>, <<"conference.example">>, <<"nick">>),
              to = jid:make(<<"u">>, <<"d">>, <<"r">>), sub_els = Els}.

facts_of_presences() ->
    Item = #muc_item{affiliation = none, role = participant},
    Real = Item#muc_item{jid = jid:make(<<"u">>, <<"d">>, <<"r">>)},
    F = fun(Type, Els) -> mod_dmuc_xml:facts(occupant(Type, Els)) end,
    ?assertEqual(1 bor (1 bsl 9), F(available, [])),
    ?assertEqual(1 bor (1 bsl 5) bor (1 bsl 9),
                 F(available, [#muc_user{items = [Item], status_codes = [110]}])),
    ?assertEqual(1 bor (1 bsl 2) bor (1 bsl 6) bor (1 bsl 8) bor (1 bsl 9),
                 F(unavailable, [#muc_user{items = [Real], status_codes = [303]}])),
    ?assertEqual(1 bor (1 bsl 2) bor (1 bsl 7) bor (1 bsl 9),
                 F(unavailable, [#muc_user{items = [Item], destroy = #muc_destroy{}}])),
    ?assertEqual(1 bor (2 bsl 2) bor (1 bsl 9), F(error, [])),
    ?assertEqual(1 bor (2 bsl 2) bor (1 bsl 9), F(error, [xmpp:err_conflict()])),
    ?assertEqual(1 bor (2 bsl 2) bor (1 bsl 9) bor (1 bsl 11),
                 F(error, [xmpp:err_remote_server_timeout()])),
    ?assertEqual(1 bor (3 bsl 2) bor (1 bsl 9), F(subscribe, [])),
    ?assertEqual(1 bor (1 bsl 9) bor (1 bsl 10), F(available, [#muc{}])).

%% What came over a stream is not decoded.
facts_of_raw_presences() ->
    lists:foreach(
      fun({Type, Els}) ->
              Pkt = occupant(Type, Els),
              Raw = xmpp:decode(xmpp:encode(Pkt), ?NS_CLIENT, [ignore_els]),
              ?assertEqual(mod_dmuc_xml:facts(Pkt), mod_dmuc_xml:facts(Raw))
      end, [{available, [#muc{}]},
            {available, [#muc_user{items = [#muc_item{jid = jid:make(<<"d">>)}],
                                   status_codes = [110, 201]}]},
            {error, [#muc{}, xmpp:err_remote_server_not_found()]}]),
    Broken = #xmlel{name = <<"x">>, attrs = [{<<"xmlns">>, ?NS_MUC_USER}],
                    children = [#xmlel{name = <<"status">>, attrs = [{<<"code">>, <<"x">>}]}]},
    ?assertEqual(1 bor (1 bsl 9), mod_dmuc_xml:facts(occupant(available, [Broken]))).

facts_of_other_stanzas() ->
    Room = jid:decode(?ROOM),
    ?assertEqual(0, mod_dmuc_xml:facts(#message{type = normal, from = Room})),
    ?assertEqual(4 bsl 2, mod_dmuc_xml:facts(#message{type = groupchat, from = Room})),
    ?assertEqual(2 bsl 2, mod_dmuc_xml:facts(#message{type = error, from = Room})),
    ?assertEqual(2, mod_dmuc_xml:facts(#iq{type = get, from = Room})).

%%%===================================================================
%%% XML
%%%===================================================================
copies_share_a_key() ->
    Pkt = occupant(available, []),
    Other = xmpp:put_meta(xmpp:set_to(Pkt, jid:make(<<"v">>, <<"e">>, <<"r">>)), x, 1),
    ?assertEqual(mod_dmuc_xml:key(Pkt), mod_dmuc_xml:key(Other)).

digest(Pkt) ->
    mod_dmuc_nif:digest(mod_dmuc_xml:key(Pkt)).

copies_share_a_digest() ->
    Pkt = occupant(available, [#muc_user{items = [#muc_item{role = visitor}]}]),
    Other = xmpp:put_meta(xmpp:set_to(Pkt, jid:make(<<"v">>, <<"e">>, <<"r">>)), x, 1),
    Again = binary_to_term(term_to_binary(Other)),
    ?assertEqual(digest(Pkt), digest(Other)),
    ?assertEqual(digest(Pkt), digest(Again)),
    ?assertEqual(16, byte_size(digest(Pkt))).

whatever_differs_shows_in_the_digest() ->
    Pkt = occupant(available, [#muc_user{items = [#muc_item{role = visitor}]}]),
    Others = [Pkt#presence{type = unavailable},
              Pkt#presence{id = <<"x">>},
              Pkt#presence{lang = <<"en">>},
              Pkt#presence{show = away},
              Pkt#presence{priority = 1},
              Pkt#presence{status = [#text{data = <<"x">>}]},
              Pkt#presence{from = jid:make(<<"room">>, <<"conference.example">>, <<"other">>)},
              Pkt#presence{sub_els = [#muc_user{items = [#muc_item{role = participant}]}]},
              Pkt#presence{sub_els = []},
              message()],
    Digests = [digest(Stanza) || Stanza <- [Pkt | Others]],
    ?assertEqual(length(Digests), length(lists:usort(Digests))).

message() ->
    #message{id = <<"1">>, type = groupchat, from = jid:decode(<<?ROOM/binary, "/nick">>),
             body = [#text{data = <<"<&> \"ü\""/utf8>>}]}.

encode(Pkt) ->
    mod_dmuc_xml:encode(Pkt, mod_dmuc_xml:facts(Pkt), digest(Pkt)).

encoded_stanzas_come_back() ->
    Digest = digest(message()),
    Facts = (4 bsl 2) bor (1 bsl 9),
    {Xml, Facts, <<"nick">>, Digest, #xmlel{} = El} = encode(message()),
    ?assertEqual(?NS_CLIENT, fxml:get_tag_attr_s(<<"xmlns">>, El)),
    ?assertEqual(message(), mod_dmuc_xml:decode(Xml)).

envelope(Children) ->
    #xmlel{name = <<"envelope">>, attrs = [{<<"xmlns">>, ?NS_DMUC}], children = Children}.

cast(Child) ->
    #xmlel{name = <<"cast">>, children = [Child]}.

incoming_tells_each_operation() ->
    {_, Facts, _, _, El} = encode(message()),
    Enter = #xmlel{name = <<"enter">>, attrs = [{<<"index">>, <<"1">>}]},
    {{Body, Payloads}, Stanzas} =
        mod_dmuc_xml:incoming(envelope([{xmlcdata, <<" ">>}, Enter, cast(El)])),
    ?assertEqual([Enter, cast(El)], Body#xmlel.children),
    ?assertEqual([none, {Facts, <<?ROOM/binary, "/nick">>, false, none}], Payloads),
    ?assertEqual({undefined, message()}, Stanzas).

what_has_a_slot_is_packed() ->
    {_, _, _, _, El} = encode(message()),
    Slot = (cast(El))#xmlel{attrs = [{<<"n">>, <<"1">>}, {<<"slot">>, <<"1">>}]},
    {{_, [Payload]}, {Stanza}} = mod_dmuc_xml:incoming(envelope([Slot])),
    Packed = element(4, Payload),
    Two = <<(byte_size(Packed)):32, Packed/binary, (byte_size(Packed)):32, Packed/binary>>,
    ?assertEqual([Stanza, Stanza], mod_dmuc_xml:unpack(Two)).

what_may_have_to_wait_is_packed() ->
    {_, _, _, _, El} = encode(message()),
    Envelope = envelope([cast(El)]),
    {{_, [Payload]}, {Stanza}} =
        mod_dmuc_xml:incoming(Envelope#xmlel{attrs = [{<<"nth">>, <<"1">>} | Envelope#xmlel.attrs]}),
    ?assertEqual(Stanza, binary_to_term(element(4, Payload))).

what_is_relayed_goes_on_as_it_came() ->
    {Xml, Facts, _, _, El} = encode(message()),
    Relayed = #xmlel{name = <<"relayed">>,
                     attrs = [{<<"room">>, ?ROOM}, {<<"class">>, <<"full">>}], children = [El]},
    {{Relayed, {Facts, _, false, Packed}} = Input, Xml} = mod_dmuc_xml:relayed(Relayed),
    ?assertEqual(message(), xmpp:set_to(binary_to_term(Packed), undefined)),
    {_, Replica} = linked(),
    ?assertEqual({undefined, []},
                 mod_dmuc_nif:replica_cast(Replica, 2, <<"stranger.example">>, Input, Xml)).

foreign_children_are_no_stanzas() ->
    Foreign = #xmlel{name = <<"message">>, attrs = [{<<"xmlns">>, <<"urn:x">>}]},
    Two = #xmlel{name = <<"cast">>, children = [Foreign, Foreign]},
    {{_, Payloads}, Stanzas} = mod_dmuc_xml:incoming(envelope([cast(Foreign), Two])),
    ?assertEqual([none, none], Payloads),
    ?assertEqual({undefined, undefined}, Stanzas).

raw_children_are_parsed() ->
    {Xml, _, _, _, El} = encode(message()),
    #xmlel{children = [#xmlel{children = [Parsed]}, _]} =
        mod_dmuc_xml:complete({xmlel, <<"envelope">>, [], [{xmlel, <<"only">>, [], [{raw, Xml}]},
                                                          cast(El)]}),
    ?assertEqual(message(), xmpp:decode(Parsed, ?NS_CLIENT, [ignore_els])).

%%%===================================================================
%%% The boundary
%%%===================================================================
shared() ->
    {ok, Shared} = mod_dmuc_nif:shared_new([]),
    Shared.

room() ->
    {ok, Room} = mod_dmuc_nif:room_new(?ROOM, 1, <<0:256>>, shared()),
    Room.

jids_come_back_as_triples() ->
    Room = room(),
    Session = {<<"u">>, <<"remote.example">>, <<"a/b@c">>},
    Facts = 1 bor (1 bsl 9),
    _ = [mod_dmuc_nif:room_capture(Room, 1, setelement(1, Session, User), Facts, none)
         || User <- [<<"u">>, <<"v">>, <<>>]],
    Body = {#xmlel{name = <<"announce">>}, []},
    {_, Actions} = mod_dmuc_nif:room_report(Room, 2, <<"remote.example">>, Body),
    ?assert(lists:member({support_seen, <<"remote.example">>}, Actions)),
    {_, Plain} = mod_dmuc_nif:room_event(Room, 3, [encode(message())],
                                         [{0, [Session]}]),
    ?assertEqual([{plain, 0, [Session]}], Plain).

strangers_pass() ->
    ?assertEqual(none,
                 mod_dmuc_nif:room_capture_many(room(), 1, [<<"u@d/r">>, {<<"v">>, <<"d">>, <<"r">>}],
                                                0)).

what_is_captured_crosses_at_once() ->
    {Room, Replica} = linked(),
    [U, V] = [jid:make(User, <<"remote.example">>, <<"r">>) || User <- [<<"u">>, <<"v">>]],
    Stranger = jid:make(<<"w">>, <<"else.example">>, <<"r">>),
    Key = mod_dmuc_xml:key(message()),
    Facts = mod_dmuc_xml:facts(Key),
    Capture = fun(Jids) -> mod_dmuc_nif:room_capture_many(Room, 2, Jids, Facts) end,
    Crosses = fun() ->
                      {_, [{deliver, 0, To}]} =
                          crosses(mod_dmuc_nif:room_event_captured(Room, 2, encode(Key)), Replica),
                      lists:sort(To)
              end,
    ?assertEqual(none, Capture([Stranger])),
    ?assertEqual(all, Capture([U, V])),
    ?assertEqual([session(<<"u">>), session(<<"v">>)], Crosses()),
    ?assertEqual([false, true], Capture([Stranger, V])),
    ?assertEqual([session(<<"v">>)], Crosses()),
    %% Nobody twice.
    ?assertEqual({undefined, []}, mod_dmuc_nif:room_event_captured_dirty(Room, 2, encode(Key))).

bad_terms_are_refused() ->
    Room = room(),
    ?assertError(badarg, mod_dmuc_nif:room_capture(Room, 1, {a, b}, 0, none)),
    ?assertError(badarg, mod_dmuc_nif:room_capture(Room, 1, <<255>>, 0, none)),
    ?assertError(badarg, mod_dmuc_nif:room_event(Room, 1, [], [{0, [<<"u@d/r">>]}])),
    Undigested = {<<>>, 0, <<>>, <<"short">>, el},
    ?assertError(badarg, mod_dmuc_nif:room_event(Room, 1, [Undigested], [])),
    ?assertError(badarg, mod_dmuc_nif:room_tick(make_ref(), 1)),
    ?assertMatch({error, _}, mod_dmuc_nif:room_new(<<"conference.example">>, 1, <<0:256>>,
                                                   shared())).

%% A room and the domain `remote.example', linked for the sessions of `u' and `v'.
linked() ->
    Room = room(),
    Replica = mod_dmuc_nif:replica_new(<<"remote.example">>, 1, shared()),
    Join = 1 bor (1 bsl 9) bor (1 bsl 10),
    Nick = <<?ROOM/binary, "/nick">>,
    _ = [mod_dmuc_nif:replica_outgoing(Replica, 1, session(User), Nick, Join)
         || User <- [<<"u">>, <<"v">>, <<"w">>, <<"x">>]],
    pass = mod_dmuc_nif:room_capture(Room, 1, session(<<"u">>), 1 bor (1 bsl 9), none),
    pass_poll = mod_dmuc_nif:room_capture(Room, 1, session(<<"v">>), 1 bor (1 bsl 9), none),
    {_, [{ask_support, Domain}]} = mod_dmuc_nif:room_event(Room, 1, [], []),
    {_, [{setup, Domain, Id, Link}]} = mod_dmuc_nif:room_support(Room, 1, Domain, true),
    {Body, _} = mod_dmuc_xml:incoming(mod_dmuc_xml:complete(Link)),
    {_, [{result, Result}]} = mod_dmuc_nif:replica_setup(Replica, 1, ?ROOM, Body),
    _ = mod_dmuc_nif:room_setup_result(Room, 1, Domain, Id, {Result, []}),
    {Room, Replica}.

session(User) ->
    {User, <<"remote.example">>, <<"r">>}.

%% What the replica does with the envelope of an event.
crosses({_, [{envelope, _, Id, El}]}, Replica) ->
    {Body, Stanzas} = mod_dmuc_xml:incoming(mod_dmuc_xml:complete(El)),
    {_, Actions} = mod_dmuc_nif:replica_envelope(Replica, 2, ?ROOM, Id, Body),
    {handled, ?ROOM, _, _} = lists:last(Actions),
    {Stanzas, lists:droplast(Actions)}.

known_stanzas_are_replayed() ->
    {Room, Replica} = linked(),
    Key = mod_dmuc_xml:key(occupant(available, [#muc_user{items = [#muc_item{role = visitor}]}])),
    Facts = mod_dmuc_xml:facts(Key),
    [W, X] = [session(User) || User <- [<<"w">>, <<"x">>]],
    {hold_all, Digest, undefined} = mod_dmuc_nif:room_capture(Room, 2, W, Facts, Key),
    ?assertEqual(mod_dmuc_nif:digest(Key), Digest),
    ?assertEqual(hold_all, mod_dmuc_nif:room_capture(Room, 2, X, Facts, none)),
    {Stanzas, First} = crosses(mod_dmuc_nif:room_event(Room, 2, [encode(Key)], [{0, [W]}]), Replica),
    [Carried] = [element(Op + 1, Stanzas) || {deliver, Op, [To]} <- First, To == W],
    ?assertEqual(xmpp:encode(Key), xmpp:encode(Carried)),
    {hold_all, Digest, Known} = mod_dmuc_nif:room_capture(Room, 3, X, Facts, Key),
    {{undefined, undefined}, Second} =
        crosses(mod_dmuc_nif:room_event(Room, 3, [{known, Known}], [{0, [X]}]), Replica),
    ?assertMatch([{replay, _, [X]}], Second),
    [{replay, Packed, _}] = Second,
    ?assertEqual([Carried], mod_dmuc_xml:unpack(Packed)).

unknown_ids_are_nobodys() ->
    {Room, _} = linked(),
    ?assertEqual([], element(2, mod_dmuc_nif:room_event(Room, 2, [{known, 7}],
                                                        [{0, [session(<<"u">>)]}]))).

%% No depth of nesting in what a peer sends reaches the native stack.
deep_elements_are_cut() ->
    Deep = lists:foldl(fun(_, El) -> #xmlel{name = <<"x">>, children = [El]} end,
                       #xmlel{name = <<"x">>}, lists:seq(1, 100000)),
    Replica = mod_dmuc_nif:replica_new(<<"example">>, 1, shared()),
    {_, Actions} = mod_dmuc_nif:replica_setup(Replica, 1, ?ROOM, {Deep, []}),
    ?assertMatch([{setup_error, _, _}], Actions).

consent_survives_a_new_handle() ->
    Session = {<<"u">>, <<"example">>, <<"r">>},
    Nick = <<?ROOM/binary, "/nick">>,
    First = mod_dmuc_nif:replica_new(<<"example">>, 1, shared()),
    ?assert(mod_dmuc_nif:replica_outgoing(First, 1, Session, Nick, 1 bor (1 bsl 9) bor (1 bsl 10))),
    Record = mod_dmuc_nif:replica_consent(First, ?ROOM, Session),
    Second = mod_dmuc_nif:replica_new(<<"example">>, 2, shared()),
    ?assertEqual(undefined, mod_dmuc_nif:replica_consent(Second, ?ROOM, Session)),
    mod_dmuc_nif:replica_import_consent(Second, 1, ?ROOM, Session, Record),
    ?assertEqual(Record, mod_dmuc_nif:replica_consent(Second, ?ROOM, Session)),
    ?assertEqual([?ROOM], mod_dmuc_nif:replica_session_closed(Second, 1, Session)).

clock_is_never_negative() ->
    ?assert(mod_dmuc:now() >= 0),
    ?assert(mod_dmuc:now() < timer:hours(24 * 365 * 100)).
