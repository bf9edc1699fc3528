%%% What the primary makes of the stanzas of a room that is linked, above all of runs: copies of one
%%% presence that follow one another, which it takes without a look at the room.
-module(mod_dmuc_primary_tests).

-include_lib("eunit/include/eunit.hrl").
-include("xmpp.hrl").
-include("mod_dmuc.hrl").

-define(SERVICE, <<"conference.example">>).
-define(DOMAIN, <<"remote.example">>).
-define(USERS, [<<"u">>, <<"v">>, <<"w">>, <<"x">>]).

%% Each test is a room, which is a process.
all_test_() ->
    {setup, fun setup/0,
     [{spawn, Test}
      || Test <- [fun copies_of_one_presence_are_a_run/0,
                  fun whatever_differs_ends_a_run/0,
                  fun other_stanzas_keep_their_place/0,
                  fun strangers_pass_a_run/0,
                  fun a_flush_ends_a_run/0,
                  fun a_room_that_ends_flushes/0]]}.

%% What a room needs of its server.
setup() ->
    {ok, _} = application:ensure_all_started(xmpp),
    ok = mod_dmuc_nif:check(),
    stub(ejabberd_router, ["is_my_route(Domain) -> Domain == <<\"conference.example\">>.",
                           "route(Pkt) -> self() ! {routed, Pkt}, ok."]),
    stub(mod_muc, ["find_online_room(_, _) -> {ok, self()}."]),
    stub(mod_muc_room, ["route(Pid, Pkt) -> Pid ! {room, Pkt}, ok."]).

stub(Module, Functions) ->
    Forms = [begin
                 {ok, Tokens, _} = erl_scan:string(Text),
                 {ok, Form} = erl_parse:parse_form(Tokens),
                 Form
             end || Text <- ["-module(" ++ atom_to_list(Module) ++ ").",
                             "-compile(export_all)." | Functions]],
    {ok, Module, Binary} = compile:forms(Forms, [nowarn_export_all]),
    {module, Module} = code:load_binary(Module, "stub", Binary).

%%%===================================================================
%%% The room
%%%===================================================================

%% A room with all users in it, linked with their domain.
linked() ->
    {ok, Shared} = mod_dmuc_nif:shared_new([]),
    Primary = #primary{host = ?SERVICE, server_host = <<"example">>, server = mod_dmuc_nobody,
                       gen = make_ref(), shared = Shared,
                       support = mod_dmuc_nif:support_new(1, Shared)},
    mod_dmuc_primary:register(Primary),
    {ok, Theirs} = mod_dmuc_nif:shared_new([]),
    Replica = mod_dmuc_nif:replica_new(?DOMAIN, 1, Theirs),
    Room = <<"room@", ?SERVICE/binary>>,
    Join = 1 bor (1 bsl 9) bor (1 bsl 10),
    _ = [mod_dmuc_nif:replica_outgoing(Replica, mod_dmuc:now(), mod_dmuc_xml:ljid(session(User)),
                                       <<Room/binary, "/nick">>, Join)
         || User <- ?USERS],
    _ = [#presence{} = send(presence(), User) || User <- ?USERS],
    [Handle] = [Part || Part <- tuple_to_list(get(mod_dmuc_room)), is_reference(Part)],
    {_, [{ask_support, ?DOMAIN}]} = mod_dmuc_nif:room_event(Handle, mod_dmuc:now(), [], []),
    {_, [{setup, ?DOMAIN, Id, Link}]} =
        mod_dmuc_nif:room_support(Handle, mod_dmuc:now(), ?DOMAIN, true),
    {Body, _} = mod_dmuc_xml:incoming(mod_dmuc_xml:complete(Link)),
    {_, [{result, Result}]} = mod_dmuc_nif:replica_setup(Replica, mod_dmuc:now(), Room, Body),
    _ = mod_dmuc_nif:room_setup_result(Handle, mod_dmuc:now(), ?DOMAIN, Id, {Result, []}),
    flush(),
    Replica.

session(User) ->
    jid:make(User, ?DOMAIN, <<"r">>).

presence() ->
    #presence{from = jid:make(<<"room">>, ?SERVICE, <<"nick">>), show = away,
              sub_els = [#muc_user{items = [#muc_item{role = participant}]}]}.

message() ->
    #message{type = chat, from = jid:make(<<"room">>, ?SERVICE, <<"nick">>),
             body = [#text{data = <<"Psst.">>}]}.

send(Stanza, User) ->
    mod_dmuc_primary:filter_packet(xmpp:set_to(Stanza, session(User))).

%% The room sends all of them, and all are held.
say(Copies) ->
    _ = [?assertEqual({stop, drop}, send(Stanza, User)) || {Stanza, User} <- Copies],
    ok.

%% The markers that are under way come back.
flush() ->
    receive
        {room, #iq{} = Marker} ->
            {stop, ignore} = mod_dmuc_primary:muc_process_iq(Marker, state),
            flush()
    after 0 -> ok
    end.

%% Whom the replica hands what, in order, of all that the room has sent to it.
heard(Replica) ->
    receive
        {routed, #message{id = Id, from = Room, sub_els = [El]}} ->
            {Body, Stanzas} = mod_dmuc_xml:incoming(El),
            {_, Actions} = mod_dmuc_nif:replica_envelope(Replica, mod_dmuc:now(),
                                                         mod_dmuc_xml:ljid(Room), Id, Body),
            [{xmpp:encode(Stanza), User}
             || Action <- Actions, {What, To} <- delivered(Action, Stanzas),
                {User, _, _} <- To, Stanza <- What] ++ heard(Replica)
    after 0 -> []
    end.

delivered({deliver, Op, To}, Stanzas) -> [{[element(Op + 1, Stanzas)], To}];
delivered({replay, Packed, To}, _) -> [{mod_dmuc_xml:unpack(Packed), To}];
delivered(_, _) -> [].

%% Each of them has what the room has sent to him, in its order, and nothing else.
all_have(Copies, Heard) ->
    Of = fun(List, User) -> [Stanza || {Stanza, To} <- List, To == User] end,
    Sent = [{xmpp:encode(Stanza), User} || {Stanza, User} <- Copies],
    _ = [?assertEqual(Of(Sent, User), Of(Heard, User)) || User <- ?USERS],
    ?assertEqual(length(Copies), length(Heard)).

%%%===================================================================
%%% Runs
%%%===================================================================
run() ->
    get(mod_dmuc_run).

copies_of_one_presence_are_a_run() ->
    Replica = linked(),
    [U, V | Others] = Copies = [{presence(), User} || User <- ?USERS],
    say([U]),
    ?assertEqual(undefined, run()),
    say([V]),
    ?assertNotEqual(undefined, run()),
    Room = get(mod_dmuc_room),
    say(Others),
    ?assertEqual(Room, get(mod_dmuc_room)),
    flush(),
    all_have(Copies, heard(Replica)).

whatever_differs_ends_a_run() ->
    Replica = linked(),
    P = presence(),
    lists:foreach(
      fun(Other) ->
              Copies = [{P, <<"u">>}, {P, <<"v">>}, {P, <<"w">>}, {Other, <<"x">>},
                        {P, <<"x">>}, {Other, <<"w">>}, {Other, <<"v">>}],
              say(Copies),
              flush(),
              all_have(Copies, heard(Replica))
      end, [P#presence{type = unavailable},
            P#presence{id = <<"x">>},
            P#presence{lang = <<"en">>},
            P#presence{from = jid:make(<<"room">>, ?SERVICE, <<"other">>)},
            P#presence{show = xa},
            P#presence{status = [#text{data = <<"x">>}]},
            P#presence{priority = 1},
            P#presence{sub_els = [#muc_user{items = [#muc_item{role = visitor}]}]},
            P#presence{sub_els = []}]).

other_stanzas_keep_their_place() ->
    Replica = linked(),
    [P, Q] = [presence(), (presence())#presence{show = xa}],
    Copies = [{P, <<"u">>}, {P, <<"v">>}, {P, <<"w">>}, {message(), <<"v">>},
              {P, <<"x">>}, {P, <<"v">>}, {P, <<"v">>},
              {Q, <<"u">>}, {Q, <<"v">>}, {Q, <<"x">>}, {message(), <<"x">>}, {message(), <<"w">>},
              {Q, <<"w">>}, {P, <<"x">>}, {P, <<"w">>}, {P, <<"u">>}],
    say(Copies),
    flush(),
    all_have(Copies, heard(Replica)).

%% Nobody else's copies are taken for those of the domain that is linked.
strangers_pass_a_run() ->
    Replica = linked(),
    [First | Others] = [{presence(), User} || User <- ?USERS],
    say([First | lists:droplast(Others)]),
    Run = run(),
    ?assertNotEqual(undefined, Run),
    _ = [begin
             Stranger = xmpp:set_to(presence(), To),
             ?assertEqual(Stranger, mod_dmuc_primary:filter_packet(Stranger))
         end || To <- [jid:make(<<"u">>, ?DOMAIN), jid:make(<<"y">>, ?SERVICE, <<"r">>),
                       jid:make(<<"y">>, <<"else.example">>, <<"r">>)]],
    say([lists:last(Others)]),
    flush(),
    all_have([First | Others], heard(Replica)).

a_flush_ends_a_run() ->
    Replica = linked(),
    {Before, [Last]} = lists:split(3, [{presence(), User} || User <- ?USERS]),
    say(Before),
    flush(),
    ?assertEqual(undefined, run()),
    all_have(Before, heard(Replica)),
    %% The same presence is captured anew.
    say([Last]),
    ?assertEqual(undefined, run()),
    flush(),
    all_have([Last], heard(Replica)).

a_room_that_ends_flushes() ->
    Replica = linked(),
    Copies = [{presence(), User} || User <- ?USERS],
    say(Copies),
    ok = mod_dmuc_primary:leave_room(<<"example">>, <<"room">>, ?SERVICE, session(<<"u">>)),
    ?assertEqual(undefined, run()),
    all_have(Copies, heard(Replica)).
