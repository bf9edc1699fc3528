%%% Stanzas as the core wants them described, and what it answers as stanzas.
-module(mod_dmuc_xml).

-export([facts/1, key/1, encode/3, decode/1, unpack/1, element/1, incoming/1, relayed/1, complete/1]).
-export([jid/1, ljid/1, message/4, iq/3, refusal/5, iq_error/3, failure/2, eviction/3, departure/3]).

-include("xmpp.hrl").
-include("mod_dmuc.hrl").

%% Facts of the core, by its own bits.
-define(MESSAGE, 0).
-define(PRESENCE, 1).
-define(IQ, 2).
-define(UNAVAILABLE, (1 bsl 2)).
-define(ERROR, (2 bsl 2)).
-define(OTHER, (3 bsl 2)).
-define(GROUPCHAT, (4 bsl 2)).
-define(CODE_110, (1 bsl 5)).
-define(CODE_303, (1 bsl 6)).
-define(DESTROY, (1 bsl 7)).
-define(ITEM_JID, (1 bsl 8)).
-define(NICK, (1 bsl 9)).
-define(MUC_X, (1 bsl 10)).
-define(NOT_REACHED, (1 bsl 11)).

%%%===================================================================
%%% Reading
%%%===================================================================

%% What the core has to know of a stanza.
-spec facts(stanza()) -> mod_dmuc_nif:facts().
facts(#presence{type = error, from = From, sub_els = Els} = Pkt) ->
    ?PRESENCE bor ?ERROR bor nick(From) bor muc(Els, 0) bor reached(xmpp:get_error(Pkt));
facts(#presence{type = Type, from = From, sub_els = Els}) ->
    ?PRESENCE bor presence_type(Type) bor nick(From) bor muc(Els, 0);
facts(#message{type = Type, from = From, sub_els = Els}) ->
    ?MESSAGE bor message_type(Type) bor nick(From) bor muc(Els, 0);
facts(#iq{type = Type, from = From}) ->
    ?IQ bor error_type(Type) bor nick(From).

-spec presence_type(atom()) -> mod_dmuc_nif:facts().
presence_type(available) -> 0;
presence_type(unavailable) -> ?UNAVAILABLE;
presence_type(_) -> ?OTHER.

-spec message_type(atom()) -> mod_dmuc_nif:facts().
message_type(groupchat) -> ?GROUPCHAT;
message_type(Type) -> error_type(Type).

-spec error_type(atom()) -> mod_dmuc_nif:facts().
error_type(error) -> ?ERROR;
error_type(_) -> 0.

%% Whether an error says that the room has not been reached: then it is not the room's.
-spec reached(stanza_error() | undefined) -> mod_dmuc_nif:facts().
reached(#stanza_error{reason = Reason})
  when Reason == 'remote-server-not-found'; Reason == 'remote-server-timeout' ->
    ?NOT_REACHED;
reached(_) ->
    0.

-spec nick(jid() | undefined) -> mod_dmuc_nif:facts().
nick(#jid{lresource = R}) when R /= <<>> -> ?NICK;
nick(_) -> 0.

-spec muc([xmpp_element() | xmlel()], mod_dmuc_nif:facts()) -> mod_dmuc_nif:facts().
muc([#muc_user{} = X | Els], Facts) ->
    muc(Els, Facts bor muc_user(X));
muc([#muc{} | Els], Facts) ->
    muc(Els, Facts bor ?MUC_X);
muc([#xmlel{name = <<"x">>, attrs = Attrs} = El | Els], Facts) ->
    case fxml:get_attr_s(<<"xmlns">>, Attrs) of
        ?NS_MUC_USER ->
            try xmpp:decode(El, ?NS_CLIENT, []) of
                #muc_user{} = X -> muc(Els, Facts bor muc_user(X));
                _ -> muc(Els, Facts)
            catch _:{xmpp_codec, _} ->
                    muc(Els, Facts)
            end;
        ?NS_MUC ->
            muc(Els, Facts bor ?MUC_X);
        _ ->
            muc(Els, Facts)
    end;
muc([_ | Els], Facts) ->
    muc(Els, Facts);
muc([], Facts) ->
    Facts.

-spec muc_user(#muc_user{}) -> mod_dmuc_nif:facts().
muc_user(#muc_user{status_codes = Codes, items = Items, destroy = Destroy}) ->
    Self = case lists:member(110, Codes) of true -> ?CODE_110; false -> 0 end,
    Renamed = case lists:member(303, Codes) of true -> ?CODE_303; false -> 0 end,
    Jid = case [1 || #muc_item{jid = #jid{}} <- Items] of [] -> 0; _ -> ?ITEM_JID end,
    Self bor Renamed bor Jid bor case Destroy of undefined -> 0; _ -> ?DESTROY end.

%% What equal copies have in common.
-spec key(stanza()) -> stanza().
key(#presence{} = Pkt) -> Pkt#presence{to = undefined, meta = #{}};
key(#message{} = Pkt) -> Pkt#message{to = undefined, meta = #{}};
key(#iq{} = Pkt) -> Pkt#iq{to = undefined, meta = #{}}.

%% The core's form of a stanza without `to'.
-spec encode(stanza(), mod_dmuc_nif:facts(), mod_dmuc_nif:digest()) -> mod_dmuc_nif:payload_in().
encode(Pkt, Facts, Digest) ->
    El = xmpp:encode(Pkt),
    Nick = case xmpp:get_from(Pkt) of #jid{resource = R} -> R; undefined -> <<>> end,
    {fxml:element_to_binary(El), Facts, Nick, Digest, El}.

%% A stanza that the core kept.
-spec decode(binary()) -> stanza().
decode(Xml) ->
    xmpp:decode(fxml_stream:parse_element(Xml), ?NS_CLIENT, [ignore_els]).

%% Stanzas that a slot kept, one after the other.
-spec unpack(binary()) -> [stanza()].
unpack(Packed) ->
    [binary_to_term(Stanza) || <<Size:32, Stanza:Size/binary>> <= Packed].

%% The dmuc element of a stanza.
-spec element(stanza()) -> xmlel() | undefined.
element(Pkt) ->
    find(xmpp:get_els(Pkt)).

-spec find([xmpp_element() | xmlel()]) -> xmlel() | undefined.
find([#xmlel{attrs = Attrs} = El | Els]) ->
    case fxml:get_attr_s(<<"xmlns">>, Attrs) of
        ?NS_DMUC -> El;
        _ -> find(Els)
    end;
find([_ | Els]) ->
    find(Els);
find([]) ->
    undefined.

%% An element for the core, and the stanzas that its children carry: `undefined' for none.
-spec incoming(xmlel()) -> {mod_dmuc_nif:body(), tuple()}.
incoming(#xmlel{attrs = Attrs, children = Children} = El) ->
    Ops = [Op || #xmlel{} = Op <- Children],
    %% On a link that lies in a room stream it may have to wait.
    Waits = lists:keymember(<<"nth">>, 1, Attrs),
    {Payloads, Stanzas} = lists:unzip(
                            [payload(Op, Waits orelse lists:keymember(<<"slot">>, 1, OpAttrs))
                             || #xmlel{attrs = OpAttrs} = Op <- Ops]),
    {{El#xmlel{children = Ops}, Payloads}, list_to_tuple(Stanzas)}.

%% The same for a <relayed/>, and the stanza in it as text.
-spec relayed(xmlel()) -> {{xmlel(), mod_dmuc_nif:incoming() | none}, Xml :: binary()}.
relayed(#xmlel{children = Children} = El) ->
    {Payload, _} = payload(El, true),
    {{El, Payload}, << <<(fxml:element_to_binary(Stanza))/binary>> || #xmlel{} = Stanza <- Children >>}.

-spec payload(xmlel(), boolean()) -> {mod_dmuc_nif:incoming() | none, stanza() | undefined}.
payload(#xmlel{children = Children}, Keep) ->
    case [El || #xmlel{} = El <- Children] of
        [#xmlel{name = Name, attrs = Attrs} = El]
          when Name == <<"message">>; Name == <<"presence">>; Name == <<"iq">> ->
            case fxml:get_attr_s(<<"xmlns">>, Attrs) of
                ?NS_CLIENT -> stanza(El, Keep);
                _ -> {none, undefined}
            end;
        _ ->
            {none, undefined}
    end.

-spec stanza(xmlel(), boolean()) -> {mod_dmuc_nif:incoming() | none, stanza() | undefined}.
stanza(El, Keep) ->
    try xmpp:decode(El, ?NS_CLIENT, [ignore_els]) of
        Pkt ->
            From = case xmpp:get_from(Pkt) of
                       undefined -> <<>>;
                       Jid -> jid:encode(jid:tolower(Jid))
                   end,
            %% Unpacking a term is far cheaper than parsing XML.
            Packed = case Keep of true -> term_to_binary(Pkt); false -> none end,
            {{facts(Pkt), From, xmpp:get_to(Pkt) /= undefined, Packed}, Pkt}
    catch _:{xmpp_codec, _} ->
            {none, undefined}
    end.

%% Parses the stanzas that the core kept as text.
-spec complete(mod_dmuc_nif:xmlel()) -> xmlel().
complete({xmlel, Name, Attrs, [{raw, Xml}]}) ->
    #xmlel{name = Name, attrs = Attrs, children = [fxml_stream:parse_element(Xml)]};
complete({xmlel, Name, Attrs, Children}) ->
    %% Only a child of the top element carries a stanza.
    #xmlel{name = Name, attrs = Attrs,
           children = [case Child of
                           {xmlel, _, _, [{raw, _}]} -> complete(Child);
                           _ -> Child
                       end || Child <- Children]}.

%%%===================================================================
%%% JIDs
%%%===================================================================

%% From what this server prepared itself: no need to do it again.
-spec jid({binary(), binary(), binary()}) -> jid().
jid({U, S, R}) ->
    #jid{user = U, server = S, resource = R, luser = U, lserver = S, lresource = R}.

-spec ljid(jid()) -> {binary(), binary(), binary()}.
ljid(#jid{luser = U, lserver = S, lresource = R}) ->
    {U, S, R}.

%%%===================================================================
%%% Writing
%%%===================================================================

%% The carrier: both servers bounce it when the module is not there.
-spec message(jid(), jid(), binary(), mod_dmuc_nif:xmlel()) -> message().
message(From, To, Id, El) ->
    #message{type = normal, id = Id, from = From, to = To, sub_els = [complete(El)]}.

-spec iq(jid(), jid(), mod_dmuc_nif:xmlel()) -> iq().
iq(From, To, El) ->
    #iq{type = set, from = From, to = To, sub_els = [complete(El)]}.

-spec refusal(jid(), jid(), binary(), binary(), binary()) -> message().
refusal(From, To, Id, Condition, Dmuc) ->
    #message{type = error, id = Id, from = From, to = To,
             sub_els = [error_el(Condition, Dmuc)]}.

-spec iq_error(iq(), binary(), binary()) -> iq().
iq_error(#iq{id = Id, from = From, to = To}, Condition, Dmuc) ->
    #iq{type = error, id = Id, from = To, to = From, sub_els = [error_el(Condition, Dmuc)]}.

-spec error_el(binary(), binary()) -> xmlel().
error_el(Condition, Dmuc) ->
    #xmlel{name = <<"error">>,
           attrs = [{<<"type">>, <<"cancel">>}],
           children = [#xmlel{name = Condition, attrs = [{<<"xmlns">>, ?NS_STANZAS}]},
                       #xmlel{name = Dmuc, attrs = [{<<"xmlns">>, ?NS_DMUC}]}]}.

%% What the room would get if a stanza to this occupant had bounced.
-spec failure(jid(), jid()) -> message().
failure(Occupant, Room) ->
    #message{type = error, from = Occupant, to = Room,
             sub_els = [#stanza_error{type = cancel, reason = 'recipient-unavailable'}]}.

%% A leave of a session, which may be gone.
-spec departure(jid(), jid(), binary()) -> presence().
departure(Session, #jid{luser = U, lserver = S}, Nick) ->
    #presence{type = unavailable, from = Session, to = jid:make(U, S, Nick)}.

%% Tells a local session that it is out of a room (XEP-0045 section 9.10: 333).
-spec eviction(jid(), binary(), jid()) -> presence().
eviction(#jid{luser = U, lserver = S}, Nick, Session) ->
    #presence{type = unavailable, from = jid:make(U, S, Nick), to = Session,
              sub_els = [#muc_user{items = [#muc_item{affiliation = none, role = none}],
                                   status_codes = [110, 333]}]}.
