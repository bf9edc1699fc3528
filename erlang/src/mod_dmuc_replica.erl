%%% The side of a user domain: who of it asked to be in which room, and what arrives for them.
%%%
%%% Everything is seen at the border to other servers, never in c2s: there a session that resumes
%%% looks like one that ends.
-module(mod_dmuc_replica).

%% Hooks
-export([s2s_receive_packet/1, s2s_send_packet/1, sm_remove_connection_hook/3,
         disco_local_features/5]).
%% For the server process
-export([find/1, register/1, unregister/1, setup/2, envelope/4, returned/2, perform/2,
         session_gone/2, node_down/2, sessions_lost/4, take_leave/1]).

-compile({no_auto_import, [register/2, unregister/1]}).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_dmuc.hrl").

%% Operations from which on an envelope goes to a dirty scheduler.
-define(DIRTY, 200).
%% A resumed session closes its old connection only after it has opened the new one, or before: look
%% again when either must be over.
-define(SESSION_GRACE, timer:seconds(10)).
%% How often, and after which time in milliseconds, to look whether the streams of a lost node are out of
%% ejabberd's table.
-define(S2S_TRIES, 50).
-define(S2S_PAUSE, 100).

-type state() :: map().
-type acc() :: {stanza() | drop, state()}.

%%%===================================================================
%%% Registry of user domains
%%%===================================================================
-spec find(binary()) -> #replica{} | undefined.
find(Host) ->
    persistent_term:get({?MODULE, Host}, undefined).

-spec register(#replica{}) -> ok.
register(#replica{host = Host} = Replica) ->
    persistent_term:put({?MODULE, Host}, Replica).

-spec unregister(binary()) -> boolean().
unregister(Host) ->
    persistent_term:erase({?MODULE, Host}).

%%%===================================================================
%%% Hooks
%%%===================================================================

%% A stanza of another server; ejabberd has checked that its domain may speak on the stream.
-spec s2s_receive_packet(acc()) -> acc() | {stop, {drop, state()}}.
s2s_receive_packet({drop, _State} = Acc) ->
    Acc;
s2s_receive_packet({Pkt, State} = Acc) ->
    case xmpp:get_meta(Pkt, dmuc, false) of
        true ->
            %% A copy of ours.
            Acc;
        false ->
            try received(Pkt, xmpp:get_from(Pkt), xmpp:get_to(Pkt), State) of
                pass -> Acc;
                {drop, State1} -> {stop, {drop, State1}}
            catch Class:Reason:Stack ->
                    broken(Pkt, {Class, Reason, Stack}),
                    Acc
            end
    end.

-spec received(stanza(), jid(), jid(), state()) -> pass | {drop, state()}.
received(#presence{} = Pkt, From, #jid{luser = U, lresource = R} = To, _State)
  when U /= <<>>, R /= <<>> ->
    incoming(Pkt, From, To),
    pass;
received(#message{type = normal} = Pkt, #jid{luser = U, lresource = <<>>} = From,
         #jid{luser = <<>>, lresource = <<>>, lserver = Host}, State) ->
    case {find(Host), mod_dmuc_xml:element(Pkt)} of
        {#replica{} = Replica, #xmlel{name = Name}} ->
            case is_for_replica(Name, U) andalso is_from_stream(From, State) of
                true -> envelope(Replica, Pkt, State, may_forward);
                false -> pass
            end;
        _ ->
            pass
    end;
received(#iq{type = set} = IQ, #jid{luser = U, lresource = <<>>} = From,
         #jid{luser = <<>>, lresource = <<>>, lserver = Host}, State) when U /= <<>> ->
    case {find(Host), mod_dmuc_xml:element(IQ)} of
        {#replica{} = Replica, #xmlel{name = <<"link">>}} ->
            case is_from_stream(From, State) of
                true -> setup(Replica, IQ), {drop, State};
                false -> pass
            end;
        _ ->
            pass
    end;
received(#message{type = error, id = Id} = Pkt, #jid{luser = U, lresource = <<>>} = From,
         #jid{luser = <<>>, lresource = <<>>, lserver = Host}, State) when U /= <<>> ->
    case find(Host) of
        #replica{} = Replica ->
            case mod_dmuc_nif:is_question_id(Id) andalso is_from_stream(From, State) of
                true -> returned(Replica, Pkt), {drop, State};
                false -> pass
            end;
        undefined ->
            pass
    end;
received(#message{type = Type, id = Id} = Pkt,
         #jid{luser = <<>>, lresource = <<>>, lserver = Domain} = From,
         #jid{luser = U, lresource = <<>>, lserver = MucHost}, State)
  when U /= <<>>, (Type == normal orelse Type == error) ->
    case mod_dmuc_primary:find(MucHost) of
        undefined ->
            pass;
        Primary when Type == error ->
            case is_from_stream(From, State) andalso
                mod_dmuc_primary:bounced(Primary, {U, Domain}, Id, refused) of
                true -> {drop, State};
                false -> pass
            end;
        Primary ->
            case mod_dmuc_xml:element(Pkt) of
                #xmlel{name = Name} = El when Name == <<"report">>; Name == <<"announce">> ->
                    case is_from_stream(From, State) of
                        true -> report(Primary, Pkt, El), {drop, State};
                        false -> pass
                    end;
                _ ->
                    pass
            end
    end;
received(_Pkt, _From, _To, _State) ->
    pass.

%% Whether a room (of this local part) says such a thing to a replica, or one replica to another.
-spec is_for_replica(binary(), binary()) -> boolean().
is_for_replica(<<"relayed">>, _) -> true;
is_for_replica(Name, Room) ->
    Room /= <<>> andalso
        lists:member(Name, [<<"envelope">>, <<"newest">>, <<"resume">>]).

%% ejabberd lets a stream speak for every domain that it has authenticated. With mod_s2s_bidi the
%% state is that of an outgoing connection, which names only its own peer.
-spec is_from_stream(jid(), state()) -> boolean().
is_from_stream(#jid{lserver = Domain}, #{auth_domains := Domains}) ->
    sets:is_element(Domain, Domains);
is_from_stream(#jid{lserver = Domain}, #{remote_server := Domain}) ->
    true;
is_from_stream(_From, _State) ->
    false.

-spec report(#primary{}, message(), xmlel()) -> ok.
report(Primary, Pkt, El) ->
    case mod_dmuc_primary:report(Primary, Pkt, El) of
        true -> ok;
        false -> ejabberd_router:route_error(Pkt, xmpp:err_item_not_found())
    end.

%% A presence of the room to a local session on the plain way.
-spec incoming(presence(), jid(), jid()) -> ok.
incoming(Pkt, #jid{luser = U} = From, #jid{lserver = Host} = To) when U /= <<>> ->
    case find(Host) of
        #replica{handle = Handle} = Replica ->
            Facts = mod_dmuc_xml:facts(Pkt),
            changed(Replica, From, To, other,
                    fun(Now, LFrom, LTo) ->
                            mod_dmuc_nif:replica_incoming(Handle, Now, LTo, LFrom, Facts)
                    end);
        undefined ->
            ok
    end;
incoming(_Pkt, _From, _To) ->
    ok.

%% A presence of a local session to another server: it may be its wish to be in a room, or the end
%% of it. Also at the end of the session, which ejabberd tells everyone who got a presence.
-spec s2s_send_packet(stanza() | drop) -> stanza() | drop.
s2s_send_packet(#presence{type = Type, from = #jid{luser = U, lresource = R, lserver = Host} = From,
                          to = #jid{luser = Room, lresource = Nick} = To} = Pkt)
  when U /= <<>>, R /= <<>>, Room /= <<>>,
       ((Type == available andalso Nick /= <<>>) orelse Type == unavailable) ->
    try find(Host) of
        #replica{handle = Handle} = Replica ->
            Facts = mod_dmuc_xml:facts(Pkt),
            changed(Replica, To, From, session,
                    fun(Now, LTo, LFrom) ->
                            mod_dmuc_nif:replica_outgoing(Handle, Now, LFrom, LTo, Facts)
                    end),
            Pkt;
        undefined ->
            Pkt
    catch Class:Reason:Stack ->
            broken(Pkt, {Class, Reason, Stack}),
            Pkt
    end;
s2s_send_packet(Acc) ->
    Acc.

-spec changed(#replica{}, jid(), jid(), session | other, fun()) -> ok.
changed(Replica, Room, Session, Who, Fun) ->
    {LRoom, LSession} = {mod_dmuc_xml:ljid(Room), mod_dmuc_xml:ljid(Session)},
    {RoomBin, SessionBin} = {bare(Room), full(Session)},
    Now = mod_dmuc:now(),
    mod_dmuc_store:refresh_consent(Replica, Now, RoomBin, SessionBin),
    case Fun(Now, LRoom, LSession) of
        true -> mod_dmuc_store:consent_changed(Replica, RoomBin, SessionBin, Who);
        false -> ok
    end.

%% The net below the unavailable presences: a session that ended without them.
-spec sm_remove_connection_hook(ejabberd_sm:sid(), jid(), term()) -> ok.
sm_remove_connection_hook(_SID, #jid{lserver = Host} = Session, _Info) ->
    case find(Host) of
        #replica{server = Server} ->
            _ = erlang:send_after(?SESSION_GRACE, Server,
                                  {session_gone, mod_dmuc_xml:ljid(Session)}),
            ok;
        undefined ->
            ok
    end.

-spec disco_local_features(empty | {result, [binary()]} | {error, stanza_error()}, jid(), jid(),
                           binary(), binary()) ->
          empty | {result, [binary()]} | {error, stanza_error()}.
disco_local_features({error, _} = Acc, _From, _To, _Node, _Lang) ->
    Acc;
disco_local_features(Acc, _From, #jid{lserver = Host}, <<>>, _Lang) ->
    case find(Host) of
        undefined -> Acc;
        _ -> {result, [?NS_DMUC | case Acc of {result, Features} -> Features; empty -> [] end]}
    end;
disco_local_features(Acc, _From, _To, _Node, _Lang) ->
    Acc.

%%%===================================================================
%%% Set-up and envelopes
%%%===================================================================

%% Whoever owns the link answers: its window is there, and a forgotten link would end with the
%% eviction of everyone in it.
-spec setup(#replica{}, iq()) -> ok.
setup(#replica{host = Host, server = Server} = Replica, #iq{from = From} = IQ) ->
    Room = bare(From),
    case mod_dmuc_store:owner(Host, Room) of
        undefined ->
            El = mod_dmuc_xml:element(IQ),
            {Body, _} = mod_dmuc_xml:incoming(El),
            locked(Server, Room,
                   fun() ->
                           import_unknown(Replica, From, Body),
                           #replica{handle = Handle} = Replica,
                           {_, List} = Actions =
                               mod_dmuc_nif:replica_setup(Handle, mod_dmuc:now(),
                                                          mod_dmuc_xml:ljid(From), Body),
                           %% Before the answer, and only for a link: anybody can ask.
                           lists:keymember(result, 1, List) andalso
                               not lists:keymember(link_over, 1, List) andalso
                               mod_dmuc_store:claim(Host, Room),
                           perform(Replica, Actions, {iq, IQ}, #{})
                   end),
            ok;
        Node ->
            gen_server:cast({Server, Node}, {setup, IQ})
    end.

%% The room's server does not know the link that was asked about.
-spec returned(#replica{}, message()) -> ok.
returned(#replica{host = Host, server = Server, handle = Handle} = Replica,
         #message{from = From, id = Id} = Pkt) ->
    Room = bare(From),
    case mod_dmuc_store:owner(Host, Room) of
        undefined ->
            locked(Server, Room,
                   fun() ->
                           perform(Replica,
                                   mod_dmuc_nif:replica_returned(Handle, mod_dmuc:now(),
                                                                 mod_dmuc_xml:ljid(From), Id))
                   end);
        Node ->
            gen_server:cast({Server, Node}, {returned, Pkt})
    end.

-spec envelope(#replica{}, message(), state(), may_forward | here) -> {drop, state()} | pass.
envelope(#replica{host = Host, server = Server, gen = Gen} = Replica,
         Pkt, State, Forward) ->
    El = mod_dmuc_xml:element(Pkt),
    Room = room(El, Pkt),
    case Forward == may_forward andalso mod_dmuc_store:owner(Host, Room) of
        Node when is_atom(Node), Node /= undefined, Node /= false ->
            %% Hooks there see what they would see of this stream.
            Known = maps:with([remote_server, lserver, server_host, ip, auth_domains], State),
            gen_server:cast({Server, Node}, {envelope, Pkt, Known}),
            {drop, State};
        _ ->
            Take = taking(El),
            locked(Server, Room,
                   fun() ->
                           case find(Host) of
                               #replica{gen = Gen} -> {drop, Take(Replica, Pkt, State)};
                               %% This one has taken its leave.
                               _ -> pass
                           end
                   end)
    end.

%% The room that it is about.
-spec room(xmlel(), message()) -> binary().
room(#xmlel{name = <<"relayed">>} = El, _Pkt) ->
    fxml:get_tag_attr_s(<<"room">>, El);
room(_El, #message{from = From}) ->
    bare(From).

%% What is to be done while nobody else is at work on that room; all else is done before.
-spec taking(xmlel()) -> fun((#replica{}, message(), state()) -> state()).
taking(#xmlel{name = <<"relayed">>} = El) ->
    {Relayed, Xml} = mod_dmuc_xml:relayed(El),
    fun(#replica{handle = Handle} = Replica, #message{from = From} = Pkt, State) ->
            Actions = mod_dmuc_nif:replica_cast(Handle, mod_dmuc:now(), mod_dmuc_xml:ljid(From),
                                                Relayed, Xml),
            perform(Replica, Actions, {relayed, El, ip(Pkt)}, State)
    end;
taking(El) ->
    {Body, Stanzas} = mod_dmuc_xml:incoming(El),
    fun(Replica, Pkt, State) -> envelope(Replica, Pkt, Body, Stanzas, State) end.

-spec ip(message()) -> inet:ip_address().
ip(Pkt) ->
    xmpp:get_meta(Pkt, ip, {127, 0, 0, 1}).

-spec envelope(#replica{}, message(), mod_dmuc_nif:body(), tuple(), state()) -> state().
envelope(#replica{handle = Handle} = Replica, #message{from = From, id = Id} = Pkt, Body, Stanzas,
         State) ->
    import_unknown(Replica, From, Body),
    LFrom = mod_dmuc_xml:ljid(From),
    Actions = case tuple_size(Stanzas) > ?DIRTY orelse replays(element(1, Body)) of
                  true ->
                      mod_dmuc_nif:replica_envelope_dirty(Handle, mod_dmuc:now(), LFrom, Id, Body);
                  false ->
                      mod_dmuc_nif:replica_envelope(Handle, mod_dmuc:now(), LFrom, Id, Body)
              end,
    perform(Replica, Actions, {envelope, Stanzas, ip(Pkt)}, State).

%% Whether ranges of slots are to be copied out of the native library.
-spec replays(xmlel()) -> boolean().
replays(#xmlel{children = Ops}) ->
    lists:any(fun(#xmlel{name = <<"replay">>} = Op) ->
                      binary:match(fxml:get_tag_attr_s(<<"slots">>, Op), <<"-">>) /= nomatch;
                 (_) ->
                      false
              end, Ops).

%% Nothing is remembered of a link that has ended.
-spec ended(#replica{}, binary()) -> ok.
ended(#replica{host = Host, server = Server}, Room) ->
    ets:delete(Server, {handled, Room}),
    mod_dmuc_store:disown(Host, Room).

%% After a fault, with a replica that is registered no more: tells every room what has been carried out.
%% Otherwise the rooms would have to take their occupants here for lost.
-spec take_leave(#replica{}) -> ok.
take_leave(#replica{host = Host, server = Server}) ->
    lists:foreach(
      fun({{_, Room} = Key, _, _}) ->
              locked(Server, Room,
                     fun() -> [bye(Host, Last) || Last <- ets:take(Server, Key)] end)
      end, ets:match_object(Server, {{handled, '_'}, '_', '_'})).

-spec bye(binary(), {{handled, binary()}, binary(), non_neg_integer()}) -> ok.
bye(Host, {{handled, Room}, Epoch, Seq}) ->
    Report = #xmlel{name = <<"report">>,
                    attrs = [{<<"xmlns">>, ?NS_DMUC}, {<<"epoch">>, Epoch},
                             {<<"ack">>, integer_to_binary(Seq)}],
                    children = [#xmlel{name = <<"bye">>}]},
    ejabberd_router:route(mod_dmuc_xml:message(jid:make(Host), jid:decode(Room),
                                               p1_rand:get_string(), Report)).

-spec import_unknown(#replica{}, jid(), mod_dmuc_nif:body()) -> ok.
import_unknown(#replica{handle = Handle} = Replica, From, Body) ->
    case mod_dmuc_store:clustered() of
        true ->
            LFrom = mod_dmuc_xml:ljid(From),
            Sessions = mod_dmuc_nif:replica_unknown_sessions(Handle, LFrom, Body),
            mod_dmuc_store:import_unknown(Replica, mod_dmuc:now(), {bare(From), Sessions});
        false ->
            ok
    end.

%% One envelope of a room at a time: a room that changes its stream has two for a moment, and what
%% the core puts in order must be delivered in that order.
%% The table is the server process's.
-spec locked(atom(), binary(), fun(() -> T)) -> T.
locked(Locks, Room, Fun) ->
    Lock = {Room, self()},
    case ets:insert_new(Locks, Lock) of
        true ->
            try Fun()
            after ets:delete_object(Locks, Lock)
            end;
        false ->
            case ets:lookup(Locks, Room) of
                [{_, Holder} = Held] ->
                    case is_process_alive(Holder) of
                        true -> timer:sleep(1);
                        false -> ets:delete_object(Locks, Held)
                    end;
                [] ->
                    ok
            end,
            locked(Locks, Room, Fun)
    end.

%%%===================================================================
%%% Actions
%%%===================================================================

%% Outside of any stanza: a tick, announcements, the end.
-spec perform(#replica{}, mod_dmuc_nif:actions()) -> ok.
perform(Replica, Actions) ->
    perform(Replica, Actions, none, #{}),
    ok.

-type cause() :: none | {iq, iq()} | {envelope, tuple(), inet:ip_address()} |
                 {relayed, xmlel(), inet:ip_address()}.

-spec perform(#replica{}, mod_dmuc_nif:actions(), cause(), state()) -> state().
perform(#replica{server = Server} = Replica, {Wake, Actions}, Cause, State0) ->
    Wake == undefined orelse gen_server:cast(Server, {wake, Wake}),
    lists:foldl(
      fun(Action, State) ->
              try action(Action, Replica, Cause, State)
              catch Class:Reason:Stack ->
                      mod_dmuc:fault("cannot carry out an action of the core",
                                     {Class, Reason, Stack}),
                      State
              end
      end, State0, Actions).

-spec action(mod_dmuc_nif:action(), #replica{}, cause(), state()) -> state().
action({deliver, Op, To}, #replica{host = Host}, {envelope, Stanzas, IP}, State) ->
    deliver_all(Host, To, element(Op + 1, Stanzas), IP, State);
action({relay, Domains}, #replica{host = Host}, {relayed, El, _}, State) ->
    Message = mod_dmuc_xml:message(jid:make(Host), jid:make(Host), p1_rand:get_string(), El),
    [pass_on(xmpp:set_to(Message, jid:make(Domain)), find(Domain)) || Domain <- Domains],
    State;
action({replay, Packed, To}, #replica{host = Host}, {_, _, IP}, State0) ->
    lists:foldl(fun(Stanza, State) -> deliver_all(Host, To, Stanza, IP, State) end,
                State0, mod_dmuc_xml:unpack(Packed));
action({report, Room, Id, El}, #replica{host = Host} = Replica, _Cause, State) ->
    Jid = mod_dmuc_xml:jid(Room),
    fxml:get_subtag(El, <<"bye">>) == false orelse ended(Replica, bare(Jid)),
    ejabberd_router:route(mod_dmuc_xml:message(jid:make(Host), Jid, Id, El)),
    State;
action({refuse, Room, Id, Condition, Dmuc}, #replica{host = Host}, _Cause, State) ->
    ejabberd_router:route(mod_dmuc_xml:refusal(jid:make(Host), mod_dmuc_xml:jid(Room), Id,
                                               Condition, Dmuc)),
    State;
action({result, El}, _Replica, {iq, IQ}, State) ->
    ejabberd_router:route(xmpp:make_iq_result(IQ, mod_dmuc_xml:complete(El))),
    State;
action({setup_error, Condition, Dmuc}, _Replica, {iq, IQ}, State) ->
    ejabberd_router:route(mod_dmuc_xml:iq_error(IQ, Condition, Dmuc)),
    State;
action({evict, Room, Nick, Session}, _Replica, _Cause, State) ->
    ejabberd_router:route(mod_dmuc_xml:eviction(mod_dmuc_xml:jid(Room), Nick,
                                                mod_dmuc_xml:jid(Session))),
    State;
action({depart, Room, Nick, Session}, _Replica, _Cause, State) ->
    ejabberd_router:route(mod_dmuc_xml:departure(mod_dmuc_xml:jid(Session),
                                                 mod_dmuc_xml:jid(Room), Nick)),
    State;
action({handled, Room, Epoch, Seq}, #replica{server = Server}, _Cause, State) ->
    ets:insert(Server, {{handled, Room}, Epoch, Seq}),
    State;
action({link_over, Room}, Replica, _Cause, State) ->
    ended(Replica, Room),
    State;
action({consent_changed, Room, Session}, Replica, _Cause, State) ->
    mod_dmuc_store:consent_changed(Replica, Room, Session, other),
    State;
action({announce, Room}, #replica{host = Host}, _Cause, State) ->
    Announce = #xmlel{name = <<"announce">>, attrs = [{<<"xmlns">>, ?NS_DMUC}]},
    ejabberd_router:route(mod_dmuc_xml:message(jid:make(Host), mod_dmuc_xml:jid(Room),
                                               p1_rand:get_string(), Announce)),
    State.

%% Another domain of this server has no stream that it could come over.
-spec pass_on(message(), #replica{} | undefined) -> ok.
pass_on(Pkt, undefined) ->
    ejabberd_router:route(Pkt);
pass_on(Pkt, #replica{server = Server}) ->
    gen_server:cast(Server, {passed_on, Pkt}).

-spec deliver_all(binary(), [ljid()], stanza(), inet:ip_address(), state()) -> state().
deliver_all(Host, To, Stanza0, IP, State0) ->
    Stanza = xmpp:put_meta(xmpp:put_meta(Stanza0, ip, IP), dmuc, true),
    lists:foldl(fun(Jid, State) -> deliver(Host, Jid, Stanza, State) end, State0, To).

%% What ejabberd does with a stanza that came alone: so blocking, CSI, carbons and counters see it.
-spec deliver(binary(), {binary(), binary(), binary()}, stanza(), state()) -> state().
deliver(Host, Jid, Stanza, State) ->
    Copy = xmpp:set_to(Stanza, mod_dmuc_xml:jid(Jid)),
    case ejabberd_hooks:run_fold(s2s_receive_packet, Host, {Copy, State}, []) of
        {drop, State1} ->
            State1;
        {Pkt, State1} ->
            ejabberd_router:route(Pkt),
            State1
    end.

%%%===================================================================
%%% Sessions and faults
%%%===================================================================

%% Some time after a connection has closed.
-spec session_gone(#replica{}, {binary(), binary(), binary()}) -> ok.
session_gone(#replica{handle = Handle} = Replica, {U, S, R} = Session) ->
    case ejabberd_sm:get_session_pid(U, S, R) of
        none ->
            Rooms = mod_dmuc_nif:replica_session_closed(Handle, mod_dmuc:now(), Session),
            Full = full(mod_dmuc_xml:jid(Session)),
            [mod_dmuc_store:consent_changed(Replica, Room, Full, session) || Room <- Rooms],
            ok;
        _ ->
            ok
    end.

%% Sessions that were there are over, and their rooms do not know yet.
-spec node_down(#replica{}, node()) -> ok.
node_down(Replica, Node) ->
    sessions_lost(Replica, Node, mod_dmuc_store:node_down(Replica, Node), ?S2S_TRIES).

%% What is sent while ejabberd still has streams of the lost node in its table goes nowhere, so this waits
%% until there are none.
-spec sessions_lost(#replica{}, node(), [{Room :: binary(), Session :: binary()}],
                    non_neg_integer()) -> ok.
sessions_lost(#replica{handle = Handle, host = Host} = Replica, Node, Keys, Tries) ->
    Domains = lists:usort([(jid:decode(Room))#jid.lserver || {Room, _} <- Keys]),
    Dead = fun(Domain) ->
                   lists:any(fun(Pid) -> node(Pid) == Node end,
                             ejabberd_s2s:get_connections_pids({Host, Domain}))
           end,
    case Tries > 0 andalso lists:any(Dead, Domains) of
        true ->
            Again = {sessions_lost, Node, Keys, Tries - 1},
            _ = erlang:send_after(?S2S_PAUSE, self(), Again),
            ok;
        false ->
            %% Some may have come back on this node meanwhile.
            [perform(Replica, mod_dmuc_nif:replica_session_lost(Handle, mod_dmuc:now(), Room,
                                                                Session))
             || {Room, Session} = Key <- Keys, mod_dmuc_store:is_of(Node, Key)],
            ok
    end.

%% The server process makes a new handle from the tables.
-spec broken(stanza(), {atom(), term(), list()}) -> ok.
broken(Pkt, {_, Reason, _} = Fault) ->
    mod_dmuc:fault("fault at the replica", Fault),
    [gen_server:cast(Server, {broken, Gen, Reason})
     || #jid{lserver = Host} <- [xmpp:get_from(Pkt), xmpp:get_to(Pkt)],
        #replica{server = Server, gen = Gen} <- [find(Host)]],
    ok.

-spec bare(jid()) -> binary().
bare(Jid) ->
    jid:encode(jid:remove_resource(jid:tolower(Jid))).

-spec full(jid()) -> binary().
full(Jid) ->
    jid:encode(jid:tolower(Jid)).
